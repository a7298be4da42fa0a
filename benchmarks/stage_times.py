"""Each kernel's time beside the time that its bytes alone would take."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.findings import Findings, Table, at_most
from benchmarks.timing import Failure, Run, graph_of, interleaved
from cellvim_kernels import Grid, Kept, Layout
from cellvim_kernels.layout import index_tables
from cellvim_kernels.stages import Stages, stages_of

CALLS = 10
"""Calls in one CUDA graph: launching takes no time between them, and the clock's steps become small."""
KEPT_SHARE = 4
"""In masked cases one token of so many is kept, in so many times as many samples."""
JUDGED, TIMES_BYTES = ("K1 conv_pool", "K2 selective_scan", "K3 expand_gate"), 1.5
"""These may take so many times their bytes over the copy rate."""


@dataclass(frozen=True)
class Shape:
    """Samples, the grid of tokens, inner width E and state size N."""

    batch: int
    rows: int
    cols: int
    channels: int
    inner: int
    state: int
    rank: int


@dataclass(frozen=True)
class Case:
    """One kernel at work.

    Args:
        run: Calls it.
        moved: Bytes that it must read and write: every input once, every output once.
    """

    run: Run
    moved: int


def time_kernels(
    findings: Findings, shape: Shape, dtype: torch.dtype, device: torch.device, backend: str, copy_rate: float
) -> None:
    """Time all kernels of a fused backend.

    Args:
        findings: Where the results go.
        shape: Of one encoder layer.
        dtype: Of tokens.
        device: Where.
        backend: `triton` or `cpp`.
        copy_rate: Bytes a second, read and written, of a large copy on this device.
    """
    stages = stages_of(backend)
    for title, layout, samples in layouts(shape, device):
        cases = kernel_cases(stages, shape, samples, layout, dtype, device)
        runs = {name: _repeated(case.run, device) for name, case in cases.items()}
        times = interleaved(runs, device, turns=20, seconds=10)
        table = Table(
            f"{title} blocks, batch {samples}, {shape.rows} x {shape.cols} x {shape.channels} tokens, "
            f"E = {shape.inner}, {dtype}",
            ("kernel", "MB", "us", "us of its bytes", "times"),
            [],
        )
        findings.tables.append(table)
        for name, case in cases.items():
            time = times[name]
            if isinstance(time, Failure):
                table.rows.append([name, case.moved / 1e6, str(time), None, None])
                table.notes.append(f"{name}: {time.reason}")
                continue
            floor = 1e6 * case.moved / copy_rate
            microseconds = 1000 * time.median / CALLS
            table.rows.append([name, case.moved / 1e6, microseconds, floor, microseconds / floor])
            if name in JUDGED:
                claim = f"{name}, {title}: time over bytes / copy rate"
                findings.goals.append(at_most(claim, microseconds / floor, TIMES_BYTES))


def layouts(shape: Shape, device: torch.device) -> Iterator[tuple[str, Layout, int]]:
    """Give name, layout and samples of even, odd and masked blocks."""
    size = shape.rows, shape.cols, shape.channels
    yield "even", Grid(*size, "rwc"), shape.batch
    yield "odd", Grid(*size, "wrc"), shape.batch
    samples = shape.batch * KEPT_SHARE
    whole = Grid(*size, "wrc")
    noise = torch.rand(samples, whole.length, generator=torch.Generator().manual_seed(0))
    ids = noise.argsort(dim=1)[:, : whole.length // KEPT_SHARE].sort(dim=1).values
    yield f"masked odd (1 of {KEPT_SHARE} tokens)", Kept.from_ids(ids.to(device), whole), samples


def kernel_cases(
    stages: Stages, shape: Shape, batch: int, layout: Layout, dtype: torch.dtype, device: torch.device
) -> dict[str, Case]:
    """Set each kernel to work on random tokens, and count what it must move."""
    tables = index_tables(layout, device)
    length, cells, width = tables.sequence.shape[1], layout.cells, shape.inner
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(size, generator=generator, device=device).to(kind)

    xz, dout = draw(batch, length, 2 * width, kind=dtype), draw(batch, length, width, kind=dtype)
    dxz = torch.empty_like(xz)
    taps, bias, D = draw(2, width, 4), draw(2, width), draw(2, width)
    norm = draw(width), draw(width)
    step, dt_bias, A = draw(2, batch, cells, width), draw(2, width), -draw(2, width, shape.state).exp()
    projected = draw(2, batch, cells, shape.rank + 2 * shape.state)
    _, B, C = projected.split([shape.rank, shape.state, shape.state], dim=-1)

    pooled, ties = stages.conv_pool(xz, taps, bias, tables, "mean")
    y, starts = stages.selective_scan(pooled, step, dt_bias, A, B, C, keeps_states=True)
    dmixed, _, _ = stages.expand_gate_backward(dout, xz, y, taps, bias, D, norm, tables, dxz)
    dy = stages.sum_cells(dmixed, tables)
    dpooled = torch.ones_like(pooled)
    out_bytes, half = dout.nbytes, xz.nbytes // 2

    index = sum(each.nbytes for each in (tables.sequence, tables.cell))
    by_cell = sum(each.nbytes for each in (tables.members, tables.first, tables.share))
    cases = {
        "K1 conv_pool": Case(
            partial(stages.conv_pool, xz, taps, bias, tables, "mean"), half + pooled.nbytes + index + by_cell
        ),
        "K2 selective_scan": Case(
            partial(stages.selective_scan, pooled, step, dt_bias, A, B, C, keeps_states=False),
            pooled.nbytes + step.nbytes + B.nbytes + C.nbytes + y.nbytes,
        ),
        "K3 expand_gate": Case(
            partial(stages.expand_gate, xz, y, taps, bias, D, norm, tables),
            xz.nbytes + y.nbytes + out_bytes + index,
        ),
        "K3 backward expand_gate": Case(
            partial(stages.expand_gate_backward, dout, xz, y, taps, bias, D, norm, tables, dxz),
            out_bytes + xz.nbytes + y.nbytes + dmixed.nbytes + half + index,
        ),
        "sum_cells": Case(partial(stages.sum_cells, dmixed, tables), dmixed.nbytes + dy.nbytes + by_cell),
        "K2 backward selective_scan": Case(
            partial(stages.selective_scan_backward, dy, pooled, step, dt_bias, A, B, C, starts),
            dy.nbytes + 2 * (pooled.nbytes + step.nbytes + B.nbytes + C.nbytes) + starts.nbytes,
        ),
        "K1 backward conv_pool": Case(
            partial(
                stages.conv_pool_backward,
                xz,
                taps,
                bias,
                D,
                tables,
                "mean",
                pooled,
                ties,
                dpooled,
                dmixed,
                dxz,
            ),
            half + dpooled.nbytes + dmixed.nbytes + half + index + by_cell,
        ),
    }
    return cases | norm_cases(stages, draw(batch, length, width // 2, kind=dtype), generator)


def norm_cases(stages: Stages, tokens: Tensor, generator: torch.Generator) -> dict[str, Case]:
    """Set addition and norm to work, over the model's width."""
    residual = torch.randn(tokens.shape, generator=generator, device=tokens.device)
    weight = torch.ones(tokens.shape[-1], device=tokens.device)
    normed, stream, scale = stages.add_rms_norm(tokens, residual, weight)
    dstream = torch.ones_like(stream)
    return {
        "add_rms_norm": Case(
            partial(stages.add_rms_norm, tokens, residual, weight),
            tokens.nbytes + residual.nbytes + normed.nbytes + stream.nbytes + scale.nbytes,
        ),
        "add_rms_norm backward": Case(
            partial(stages.add_rms_norm_backward, normed, dstream, stream, scale, weight),
            normed.nbytes + dstream.nbytes + stream.nbytes + scale.nbytes + dstream.nbytes,
        ),
    }


def _repeated(run: Run, device: torch.device) -> Run:
    def several() -> None:
        for _ in range(CALLS):
            run()

    try:
        return graph_of(several, device)
    except Exception:  # noqa: BLE001 - without a graph it may work, or say again what is wrong
        return several
