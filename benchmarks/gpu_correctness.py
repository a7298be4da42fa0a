"""The backend in use on the device against the equation in float64: outputs and every gradient.

The equation runs on the CPU, on the tokens and weights as rounded for the backend.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.eager import Parts, eager_pooled_mixer, kernel_parts
from benchmarks.findings import Cell, Findings, Goal, Table
from benchmarks.timing import Failure
from cellvim_kernels import Grid, Kept, Layout, MixerWeights, Pool, ScanInputs, add_rms_norm, pooled_mixer
from cellvim_kernels.add_rms_norm import naive_add_rms_norm
from cellvim_kernels.pooled_mixer import naive_pooled_mixer
from cellvim_kernels.selective_scan import naive_selective_scan
from cellvim_kernels.selective_scan.mamba import mamba_selective_scan, why_unavailable

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
"""Relative error in the 2-norm, by type of the tokens: a few roundings, not one per sum."""
BASELINE_TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""What is to be expected of a baseline: it keeps more in bf16, and its kernels take short cuts."""

BOTH: tuple[Pool, ...] = ("mean", "max")
SHARE_KEPT = 0.4
BATCH, TAPS, STEP_RANK = 2, 4, 2
CPU = torch.device("cpu")

Mixer = Callable[[Tensor, MixerWeights, Layout, Pool], Tensor]


@dataclass(frozen=True)
class Trial:
    """One layout and width to try.

    Args:
        name: As it stands in the report.
        grid: All tokens, in the order of the sequence.
        inner: Inner width E.
        state: State size N.
        is_masked: Only some tokens are there; the first sample then shows none of the first row.
        pools: How cells are made.
    """

    name: str
    grid: Grid
    inner: int
    state: int
    is_masked: bool = False
    pools: tuple[Pool, ...] = BOTH

    @property
    def length(self) -> int:
        return max(1, round(SHARE_KEPT * self.grid.length)) if self.is_masked else self.grid.length

    def layout(self, device: torch.device) -> Layout:
        if not self.is_masked:
            return self.grid
        noise = torch.rand(BATCH, self.grid.length, generator=torch.Generator().manual_seed(0))
        noise[0, : self.grid.cols * self.grid.channels] = 2
        ids = noise.argsort(dim=1)[:, : self.length].sort(dim=1).values
        return Kept.from_ids(ids.to(device), self.grid)


TINY_EVEN = Trial("even", Grid(2, 3, 2, "rwc"), 6, 2, pools=("mean",))
TINY_ODD = Trial("odd", Grid(3, 2, 2, "wrc"), 6, 2, pools=("mean",))


def compare(findings: Findings, device: torch.device, *, is_tiny: bool) -> None:
    """Compare the backend in use, and the baselines, with the equation."""
    cases: list[tuple[str, torch.dtype, float]] = []
    for trial in trials(is_tiny=is_tiny):
        for pool in trial.pools:
            name = f"mixer, {trial.name}, {pool}"
            cases += [
                (name, dtype, mixer_error(pooled_mixer, trial, pool, dtype, device)) for dtype in TOLERANCES
            ]
    cases += [("add_rms_norm", dtype, norm_error(96, dtype, device)) for dtype in TOLERANCES]
    # Written this way round, a NaN is outside.
    wrong = sum(not error < TOLERANCES[dtype] for _, dtype, error in cases)
    rows: list[list[Cell]] = [[name, str(dtype), error, TOLERANCES[dtype]] for name, dtype, error in cases]
    columns = ("what", "tokens", "largest relative error", "tolerance")
    findings.tables.append(Table("Output and every gradient against float64", columns, rows))
    claim = f"results outside their tolerance, of {len(cases)}: 0"
    findings.goals.append(Goal(claim, wrong, wrong == 0, is_required=True))
    findings.tables.append(_baselines(device))


def trials(*, is_tiny: bool) -> list[Trial]:
    """Even, odd, unpooled and masked blocks with both ways of pooling, and the small preset's width."""
    if is_tiny:
        # Each way of pooling once, and each kind of block: Triton's interpreter takes seconds for one.
        return [TINY_EVEN, Trial("masked odd", TINY_ODD.grid, 6, 2, is_masked=True, pools=("max",))]
    even, odd = TINY_EVEN.grid, TINY_ODD.grid
    large_even, large_odd = Grid(6, 5, 3, "rwc"), Grid(6, 5, 3, "wrc")
    return [
        Trial("even", even, 96, 16),
        Trial("odd", odd, 96, 16),
        Trial("masked even", even, 96, 16, is_masked=True),
        Trial("masked odd", odd, 96, 16, is_masked=True),
        Trial("unpooled", Grid(2, 3, 2, is_pooled=False), 96, 16, pools=("mean",)),
        Trial("even, E = 768", large_even, 768, 16, pools=("mean",)),
        Trial("odd, E = 768", large_odd, 768, 16),
        Trial("masked odd, E = 768", large_odd, 768, 16, is_masked=True),
    ]


def mixer_error(mixer: Mixer, trial: Trial, pool: Pool, dtype: torch.dtype, device: torch.device) -> float:
    """Largest relative error of output and gradients, in the 2-norm."""
    generator = torch.Generator().manual_seed(0)
    xz = torch.randn(BATCH, trial.length, 2 * trial.inner, generator=generator).to(dtype)
    weights = draw_weights(trial.inner, trial.state, generator)
    drawn = [xz, *(tensor for tensor in weights if tensor is not None)]
    results = []
    for function, where, kind in ((mixer, device, None), (naive_pooled_mixer, CPU, torch.float64)):
        given = [tensor.detach().to(where, kind or tensor.dtype).requires_grad_() for tensor in drawn]
        out = function(given[0], MixerWeights(*given[1:]), trial.layout(where), pool)
        results.append([out, *torch.autograd.grad(out, given, fixed_weights(out))])
    return largest_error(*results)


def norm_error(width: int, dtype: torch.dtype, device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(size, generator=generator) for size in ((2, 5, width), (2, 5, width), (width,))]
    drawn[0] = drawn[0].to(dtype)
    results = []
    for function, where, kind in ((add_rms_norm, device, None), (naive_add_rms_norm, CPU, torch.float64)):
        given = [tensor.detach().to(where, kind or tensor.dtype).requires_grad_() for tensor in drawn]
        outputs = function(*given)
        directions = [fixed_weights(outputs[0]), fixed_weights(outputs[1]).flip(0)]
        results.append([*outputs, *torch.autograd.grad(outputs, given, directions)])
    return largest_error(*results)


def scan_error(device: torch.device) -> float:
    """The same of mamba-ssm's scan, in float32."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    shape = 2, BATCH, 37
    drawn = [
        draw(*shape, 96),
        draw(*shape, 96).exp(),
        -draw(2, 96, 16).exp(),
        draw(*shape, 16),
        draw(*shape, 16),
    ]
    results = []
    for is_exact in (False, True):
        where, kind = (CPU, torch.float64) if is_exact else (device, torch.float32)
        given = ScanInputs(*(tensor.detach().to(where, kind).requires_grad_() for tensor in drawn))
        y = naive_selective_scan(given)[0] if is_exact else mamba_selective_scan(given)
        results.append([y, *torch.autograd.grad(y, given, fixed_weights(y))])
    return largest_error(*results)


def fixed_weights(out: Tensor) -> Tensor:
    """Fixed weights of a sum over all outputs, on every device and in every type the same numbers."""
    return torch.linspace(-1, 1, out.numel()).cos().bfloat16().view_as(out).to(out)


def draw_weights(inner: int, state: int, generator: torch.Generator) -> MixerWeights:
    sizes = [
        (2, inner, TAPS),
        (2, inner),
        (2, STEP_RANK + 2 * state, inner),
        (2, inner, STEP_RANK),
        (2, inner),
        (2, inner, state),
        (2, inner),
        (inner,),
        (inner,),
    ]
    return MixerWeights(*(torch.randn(size, generator=generator) * 0.3 for size in sizes))


def largest_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """NaN if any number is none."""
    errors = [
        (mine.detach().double().cpu() - truth).norm() / truth.norm().clamp(min=1e-12)
        for mine, truth in zip(actual, expected, strict=True)
    ]
    return float(torch.stack(errors).detach().amax())


def _baselines(device: torch.device) -> Table:
    parts = kernel_parts()
    rows: list[list[Cell]] = []
    for trial in (TINY_EVEN, TINY_ODD):
        for dtype, expected in BASELINE_TOLERANCES.items():
            try:
                found: Cell = mixer_error(_eager(parts), trial, "mean", dtype, device)
            except Exception as error:  # noqa: BLE001 - told in its row; whose kernels fail is not ours to stop for
                found = Failure.of(error).reason
            rows.append([f"eager composition, {trial.name}", str(dtype), found, expected])
    reason = why_unavailable()
    scanned: Cell = scan_error(device) if reason is None else f"not compared: {reason}"
    rows.append(["mamba-ssm's scan", "torch.float32", scanned, BASELINE_TOLERANCES[torch.float32]])
    sources = ", ".join(f"{name}: {source}" for name, source in parts.sources.items())
    columns = ("baseline", "tokens", "largest relative error", "to be expected")
    return Table(f"Baselines against float64 ({sources})", columns, rows)


def _eager(parts: Parts) -> Mixer:
    def mixer(xz: Tensor, weights: MixerWeights, layout: Layout, _: Pool) -> Tensor:
        if not isinstance(layout, Grid):
            raise TypeError(layout)
        return eager_pooled_mixer(xz, weights, layout, parts)

    return mixer
