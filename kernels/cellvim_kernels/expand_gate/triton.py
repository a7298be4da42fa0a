"""Fused expansion, local path, LayerNorm and gate for NVIDIA GPUs, token-major: one read of xz and one write.

Convolutions are computed again, which is cheaper than to store their results.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.expand_gate.naive import NORM_EPS
from cellvim_kernels.expand_gate.triton_backward import expand_gate_backward
from cellvim_kernels.expand_gate.triton_mix import (
    STEP,
    Tiling,
    mix_rows,
    positions_per_program,
    standardise,
    taps_first,
)
from cellvim_kernels.expand_gate.triton_rows import load_row, load_weight, store_row
from cellvim_kernels.tables import Tables
from cellvim_kernels.triton_math import silu

__all__ = ["expand_gate", "expand_gate_backward", "sum_cells"]

LONGEST_WALK = 32
MEMBERS = 8
"""Members of a cell that are read at a time."""


def expand_gate(
    xz: Float[Tensor, "b L XZ"],
    y: Float[Tensor, "2 b P E"],
    conv_weight: Float[Tensor, "2 E 4"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    norm: tuple[Float[Tensor, " E"], Float[Tensor, " E"]] | None,
    tables: Tables,
) -> Float[Tensor, "b L E"]:
    """Compute what `naive_expand_gate` defines, from the tokens before the convolution.

    Args:
        xz: Output of in_proj in memory order, float32 or bfloat16, contiguous.
        y: Result of the scan over cells, float32.
        conv_weight: Depthwise taps of both directions; the last one meets the token itself.
        conv_bias: Bias of the convolution.
        D: Weight of the local path.
        norm: Scale and shift of the LayerNorm.
        tables: Order of the sequence and cell of each token.

    Returns:
        Gated tokens in memory order, in the type of `xz`.
    """
    batch, length, double_width = xz.shape
    width = double_width // 2
    out = torch.empty(batch, length, width, dtype=xz.dtype, device=xz.device)
    walk = positions_per_program(batch, length, LONGEST_WALK)
    scale, shift = (D, D) if norm is None else norm
    shares_cells = len(tables.cell) == 1
    tiling = forward_tiling(width, shares_cells=shares_cells)
    expand_gate_kernel[(batch * triton.cdiv(length, walk),)](
        out,
        xz,
        y,
        taps_first(conv_weight),
        conv_bias,
        D,
        scale,
        shift,
        tables.sequence,
        tables.cell,
        batch,
        length,
        tables.cells,
        walk,
        0 if len(tables.sequence) == 1 else length,
        tables.cell[0].numel(),
        E=width,
        CHUNK=tiling.chunk,
        CHUNKS=tiling.chunks,
        STEP=STEP,
        SHARES_CELLS=shares_cells,
        HAS_NORM=norm is not None,
        EPS=4 * NORM_EPS,
        FAST=xz.is_cuda and xz.dtype == torch.bfloat16,
        num_warps=tiling.warps,
        enable_fp_fusion=False,
    )
    return out


def forward_tiling(width: int, *, shares_cells: bool) -> Tiling:
    """Tiles of the forward pass: a second table of cells leaves registers for half as many channels."""
    return Tiling.of(width, channels_per_warp=384 if shares_cells else 192)


def sum_cells(dmixed: Float[Tensor, "b L E"], tables: Tables) -> Float[Tensor, "G b P E"]:
    """Gradient of the scan's results: half the sum of `dmixed` over the members of each cell. Deterministic.

    Args:
        dmixed: Gradient of the mixed value, in the order of the sequence.
        tables: Order of the sequence and cell of each token.

    Returns:
        Float32; once if both directions share their cells, for they get the same gradient.
    """
    batch, length, width = dmixed.shape
    directions, cells = len(tables.cell), tables.cells
    dy = torch.empty(directions, batch, cells, width, dtype=torch.float32, device=dmixed.device)
    chunk = sum_chunk(width)
    is_alike = len(tables.sequence) == 1
    is_regular = tables.row_tokens > 0
    sum_cells_kernel[(batch * cells, triton.cdiv(width, chunk), directions)](
        dy,
        dmixed,
        tables.members,
        tables.first,
        length,
        cells,
        tables.row_tokens,
        tables.interleave,
        0 if is_alike else length,
        0 if is_alike else cells + 1,
        tables.members[0].numel(),
        tables.first[0].numel(),
        E=width,
        CHUNK=chunk,
        MEMBERS=min(MEMBERS, triton.next_power_of_2(tables.row_tokens)) if is_regular else MEMBERS,
        IS_REGULAR=is_regular,
        num_warps=1,
        enable_fp_fusion=False,
    )
    return dy


def sum_chunk(width: int) -> int:
    """Channels that one warp sums: 256 or the power of two that divides the width, if it is not too small."""
    divisor = min(256, width & -width)
    return divisor if divisor >= 64 else min(256, triton.next_power_of_2(width))


@triton.jit
@no_type_check
def expand_gate_kernel(
    out: tl.tensor,
    xz: tl.tensor,
    y: tl.tensor,
    taps: tl.tensor,
    conv_bias: tl.tensor,
    D: tl.tensor,
    norm_scale: tl.tensor,
    norm_shift: tl.tensor,
    sequence: tl.tensor,
    cell: tl.tensor,
    batch: tl.tensor,
    length: tl.tensor,
    cells: tl.tensor,
    walk: tl.tensor,
    table_stride: tl.tensor,
    direction_stride: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEP: tl.constexpr,
    SHARES_CELLS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    EPS: tl.constexpr,
    FAST: tl.constexpr,
) -> None:
    """Walk along the sequence of one sample, STEP positions at a time."""
    walks = tl.cdiv(length, walk)
    sample = (tl.program_id(0) // walks).to(tl.int64)
    first = (tl.program_id(0) % walks) * walk
    x = xz + sample * length * (2 * E)
    gated = out + sample * length * E
    y_forward = y + sample * cells * E
    y_backward = y_forward + batch.to(tl.int64) * cells * E
    sequence += sample * table_stride
    cell += sample * table_stride
    for start in range(first, min(first + walk, length), STEP):
        normed, rows, exist = mix_rows(
            x, y_forward, y_backward, taps, conv_bias, D, sequence, cell, direction_stride, start, length,
            E, CHUNK, CHUNKS, STEP, SHARES_CELLS, FAST,
        )  # fmt: skip
        if HAS_NORM:
            normed, _ = standardise(normed, E, CHUNK, CHUNKS, STEP, EPS)
        for chunk in tl.static_range(CHUNKS):
            channel = chunk * CHUNK + tl.arange(0, CHUNK)
            if HAS_NORM:
                scale = load_weight(norm_scale, channel, E, CHUNK)
                shift = load_weight(norm_shift, channel, E, CHUNK)
            for index in tl.static_range(STEP):
                exists = exist[index + 3]
                z = load_row(x + rows[index + 3] * (2 * E) + E, channel, exists, E, CHUNK)
                tile = normed[chunk][index]
                value = tl.fma(tile, scale, shift) if HAS_NORM else tile * 0.5
                store_row(gated + rows[index + 3] * E, channel, value * silu(z, FAST), exists, E, CHUNK)


@triton.jit
@no_type_check
def sum_cells_kernel(
    dy: tl.tensor,
    dmixed: tl.tensor,
    members: tl.tensor,
    first: tl.tensor,
    length: tl.tensor,
    cells: tl.tensor,
    row_tokens: tl.tensor,
    interleave: tl.tensor,
    member_stride: tl.tensor,
    first_stride: tl.tensor,
    member_direction: tl.tensor,
    first_direction: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    MEMBERS: tl.constexpr,
    IS_REGULAR: tl.constexpr,
) -> None:
    """Sum one cell of one sample, MEMBERS tokens at a time."""
    sample = (tl.program_id(0) // cells).to(tl.int64)
    cell = tl.program_id(0) % cells
    channel = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    present = channel < E
    tokens = dmixed + sample * length * E
    member = tl.arange(0, MEMBERS)
    if IS_REGULAR:
        begin = 0
        end = row_tokens
        start = cell // interleave * row_tokens * interleave + cell % interleave
    else:
        ends = first + tl.program_id(2) * first_direction + sample * first_stride + cell
        begin = tl.load(ends)
        end = tl.load(ends + 1)
        members += tl.program_id(2) * member_direction + sample * member_stride
    total = tl.zeros((MEMBERS, CHUNK), tl.float32)
    for k in range(begin, end, MEMBERS):
        if IS_REGULAR:
            position = start + (k + member) * interleave
        else:
            position = tl.load(members + k + member, mask=k + member < end, other=0)
        mask = (k + member < end)[:, None] & present[None, :]
        tile = tl.load(tokens + position[:, None] * E + channel[None, :], mask=mask, other=0.0)
        total += tile.to(tl.float32)
    row = dy + (tl.program_id(2).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * E
    tl.store(row + channel, tl.sum(total, axis=0) * 0.5, mask=present)
