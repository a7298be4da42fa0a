"""What all tests of the mixer share: random weights and tokens, kept tokens with empty rows, comparison."""

from collections.abc import Callable

import torch
from torch import Tensor

from cellvim_kernels import BackwardRows, Divisor, Grid, Kept, Layout, MixerWeights, Order, Pool

FLOAT64_TOLERANCE = 1e-10
"""Both paths in float64 differ by rounding only."""
FLOAT32_TOLERANCE = 2e-5
"""Relative error in the 2-norm of float32 against float64."""
BF16_TOLERANCE = 1e-2
"""The same of bf16 tokens: one rounding to 8 bits is 2e-3, so there is room for a few, not for one per sum."""

Mixer = Callable[[Tensor, MixerWeights, Layout, Pool], Tensor]

ORDERS: tuple[Order, ...] = ("rwc", "wrc", "crw", "cwr")


def draw_weights(
    inner: int, *, state: int = 4, rank: int = 2, dtype: torch.dtype = torch.float64
) -> MixerWeights:
    generator = torch.Generator().manual_seed(inner)

    def draw(*shape: int, scale: float = 0.5) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float64) * scale
        return values.to(dtype).requires_grad_()

    return MixerWeights(
        conv_weight=draw(2, inner, 4),
        conv_bias=draw(2, inner),
        x_proj=draw(2, rank + 2 * state, inner),
        dt_weight=draw(2, inner, rank),
        dt_bias=draw(2, inner),
        A_log=draw(2, inner, state),
        D=draw(2, inner, scale=1.0),
        norm_weight=draw(inner, scale=1.0),
        norm_bias=draw(inner),
    )


def draw_tokens(batch: int, length: int, inner: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    values = torch.randn(batch, length, 2 * inner, generator=generator, dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def keep(
    grid: Grid,
    *,
    batch: int,
    ratio: float,
    divisor: Divisor = "count",
    backward_rows: BackwardRows = "corrected",
    device: str = "cpu",
) -> Kept:
    """Keep random tokens; the first sample shows none of the first row, so that empty cells occur."""
    generator = torch.Generator().manual_seed(grid.length)
    count = max(1, round(grid.length * ratio))
    noise = torch.rand(batch, grid.length, generator=generator)
    if ratio < 1 and grid.rows > 1:
        noise[0, : min(grid.cols * grid.channels, grid.length - count)] = 2
    ids = noise.argsort(dim=1)[:, :count].sort(dim=1).values
    return Kept.from_ids(ids.to(device), grid, divisor=divisor, backward_rows=backward_rows)


def outputs_and_gradients(
    mixer: Mixer, xz: Tensor, weights: MixerWeights, layout: Layout, pool: Pool = "mean"
) -> list[Tensor]:
    out = mixer(xz, weights, layout, pool)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out).cos()
    return [out, *torch.autograd.grad((out * direction).sum(), [xz, *weights])]


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for number, (mine, truth) in enumerate(zip(actual, expected, strict=True)):
        assert mine.isfinite().all()
        error = (mine.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-12)
        assert error < tolerance, f"tensor {number}: relative error {error:.1e}"
