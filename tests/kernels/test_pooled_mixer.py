"""The token-major mixer against its equation: outputs and every gradient, dense and masked."""

import pytest
import torch
from torch import Tensor

from cellvim_kernels import Grid, Kept, Layout, MixerWeights, Order, Pool
from cellvim_kernels.pooled_mixer import naive_pooled_mixer, token_major_pooled_mixer

FLOAT64_TOLERANCE = 1e-10
"""Both paths in float64 differ by rounding only."""
FLOAT32_TOLERANCE = 2e-5
"""Relative error in the 2-norm of float32 against float64."""

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


def keep(grid: Grid, *, batch: int, ratio: float) -> Kept:
    """Keep random tokens; the first sample shows none of the first row, so that empty cells occur."""
    generator = torch.Generator().manual_seed(grid.length)
    count = max(1, round(grid.length * ratio))
    noise = torch.rand(batch, grid.length, generator=generator)
    if ratio < 1 and grid.rows > 1:
        noise[0, : min(grid.cols * grid.channels, grid.length - count)] = 2
    return Kept.from_ids(noise.argsort(dim=1)[:, :count].sort(dim=1).values, grid)


def outputs_and_gradients(
    mixer: object, xz: Tensor, weights: MixerWeights, layout: Layout, pool: Pool
) -> list[Tensor]:
    assert callable(mixer)
    out = mixer(xz, weights, layout, pool)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out).cos()
    return [out, *torch.autograd.grad((out * direction).sum(), [xz, *weights])]


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for number, (mine, truth) in enumerate(zip(actual, expected, strict=True)):
        assert mine.isfinite().all()
        error = (mine.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-12)
        assert error < tolerance, f"tensor {number}: relative error {error:.1e}"


def layouts() -> list[tuple[Layout, int]]:
    grids = [
        Grid(rows, cols, channels, order)
        for rows, cols in ((3, 3), (2, 5), (1, 1))
        for channels in (1, 5)
        for order in ORDERS
    ]
    grids += [
        Grid(5, 2, 8, "wrc"),
        Grid(3, 2, 2, "rwc", is_pooled=False),
        Grid(3, 2, 2, "cwr", is_pooled=False),
    ]
    chosen: list[tuple[Layout, int]] = [(grid, grid.length) for grid in grids]
    for grid in grids:
        for ratio in (0.1, 0.25, 1.0):
            kept = keep(grid, batch=2, ratio=ratio)
            chosen.append((kept, kept.cell.shape[1]))
    return chosen


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("layout", "length"), layouts())
def test_outputs_and_all_gradients_match_the_equation(layout: Layout, length: int, pool: Pool) -> None:
    xz, weights = draw_tokens(2, length, 6), draw_weights(6)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, layout, pool)
    actual = outputs_and_gradients(token_major_pooled_mixer, xz, weights, layout, pool)
    assert_same(actual, expected, FLOAT64_TOLERANCE)
