"""The Triton convolution and pooling against its equation: cells, ties and every gradient, on a CPU too."""

import os
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

if not torch.cuda.is_available():
    # Read when the kernels are imported: they then run on CPU tensors, statement by statement.
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton")

from cellvim_kernels import Grid, Kept, Layout, Pool
from cellvim_kernels.conv_pool import naive_conv_pool
from cellvim_kernels.conv_pool.triton import conv_pool, conv_pool_backward
from cellvim_kernels.layout import BackwardRows, Divisor, index_tables
from tests.kernels.mixer_cases import BF16_TOLERANCE, FLOAT32_TOLERANCE, keep

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

SINGLE, HALF = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """A layout and what is run on it; `ratio` None is the whole grid."""

    grid: Grid
    pool: Pool = "mean"
    dtype: torch.dtype = SINGLE
    width: int = 6
    batch: int = 2
    ratio: float | None = None
    divisor: Divisor = "count"
    backward_rows: BackwardRows = "corrected"

    @property
    def layout(self) -> Layout:
        if self.ratio is None:
            return self.grid
        return keep(
            self.grid,
            batch=self.batch,
            ratio=self.ratio,
            divisor=self.divisor,
            backward_rows=self.backward_rows,
            device=str(DEVICE),
        )


DENSE = [
    Case(Grid(1, 1, 1)),
    Case(Grid(1, 2, 1, "cwr"), dtype=HALF),
    Case(Grid(1, 7, 1), "max", width=24),
    Case(Grid(3, 3, 7, "wrc"), dtype=HALF),
    Case(Grid(3, 3, 1, "crw"), "max", HALF, width=24),
    Case(Grid(2, 5, 5), width=33, batch=3),
    Case(Grid(2, 5, 5, "cwr"), "max"),
    Case(Grid(3, 2, 8, "wrc"), "max", HALF, width=8),
    Case(Grid(3, 4, 2, "crw"), width=24),
    # More channels than a program sums side by side, and a number of them that it does not divide.
    Case(Grid(2, 2, 16), batch=1),
    Case(Grid(2, 2, 11), "max", batch=1),
    # Several segments of the backward pass, the last one shorter.
    Case(Grid(3, 5, 7), dtype=HALF, width=16),
    Case(Grid(2, 5, 8, "wrc"), "max", batch=1),
    Case(Grid(3, 2, 2, is_pooled=False), dtype=HALF),
    Case(Grid(1, 11, 1, "cwr", is_pooled=False), "max"),
    Case(Grid(3, 4, 2, "wrc", scale=0.25)),
]
MASKED = [
    Case(Grid(3, 5, 1), ratio=0.1, batch=3),
    Case(Grid(3, 5, 5, "wrc"), "max", HALF, width=24, ratio=0.25),
    Case(Grid(3, 3, 4, "crw"), width=33, ratio=0.25),
    Case(Grid(3, 3, 5, "cwr"), "max", ratio=0.25, batch=3),
    Case(Grid(3, 3, 8), dtype=HALF, ratio=0.25),
    Case(Grid(2, 3, 5, "wrc"), width=8, ratio=1.0),
    Case(Grid(2, 2, 2), "max", ratio=1.0, batch=1),
    Case(Grid(3, 5, 2, "cwr"), ratio=0.4, divisor="width"),
    Case(Grid(3, 5, 2, "wrc"), dtype=HALF, ratio=0.4, divisor="width", backward_rows="published"),
    Case(Grid(3, 5, 2), "max", width=8, ratio=0.4, backward_rows="published", batch=3),
    Case(Grid(5, 5, 4), ratio=0.7, backward_rows="published", batch=1),
    Case(Grid(3, 3, 2, "cwr", is_pooled=False), ratio=0.4),
]


@dataclass(frozen=True)
class Inputs:
    xz: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    D: Tensor
    dpooled: Tensor
    dmixed: Tensor


def draw(case: Case, layout: Layout) -> Inputs:
    """Values as the kernels get them: tokens rounded to their type, everything else to float32."""
    generator = torch.Generator().manual_seed(case.width)
    length = layout.place.shape[1] if isinstance(layout, Kept) else layout.length

    def normal(*shape: int, dtype: torch.dtype = SINGLE) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(DEVICE, dtype)

    return Inputs(
        normal(case.batch, length, 2 * case.width, dtype=case.dtype),
        normal(2, case.width, 4) * 0.5,
        normal(2, case.width) * 0.5,
        normal(2, case.width),
        normal(2, case.batch, layout.cells, case.width),
        normal(case.batch, length, case.width, dtype=case.dtype),
    )


def run(inputs: Inputs, layout: Layout, pool: Pool) -> tuple[list[Tensor], Tensor]:
    """Cells and the gradients of x, taps, bias and D; and the ties."""
    tables = index_tables(layout, DEVICE)
    xz, conv_weight, conv_bias = inputs.xz, inputs.conv_weight, inputs.conv_bias
    pooled, ties = conv_pool(xz, conv_weight, conv_bias, tables, pool)
    dxz = torch.full_like(xz, torch.nan)
    gradients = conv_pool_backward(
        xz, conv_weight, conv_bias, inputs.D, tables, pool, pooled, ties, inputs.dpooled, inputs.dmixed, dxz
    )
    dx, dz = dxz.chunk(2, dim=-1)
    assert dz.isnan().all()
    return [pooled, dx, *gradients], ties


def truth(inputs: Inputs, layout: Layout, pool: Pool) -> list[Tensor]:
    """The same by autograd through the equation, in float64."""
    leaves = [
        tensor.double().requires_grad_()
        for tensor in (inputs.xz, inputs.conv_weight, inputs.conv_bias, inputs.D)
    ]
    xz, conv_weight, conv_bias, D = leaves
    pooled, local = naive_conv_pool(xz, conv_weight, conv_bias, layout, pool)
    mixed = 0.5 * (D[:, None, None] * local).sum(0)
    loss = (pooled * inputs.dpooled).sum() + (mixed * inputs.dmixed).sum()
    dxz, *gradients = torch.autograd.grad(loss, leaves)
    return [pooled.detach(), dxz.chunk(2, dim=-1)[0], *gradients]


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for number, (mine, right) in enumerate(zip(actual, expected, strict=True)):
        assert mine.isfinite().all(), f"tensor {number}"
        error = (mine.double() - right).norm() / right.norm().clamp(min=1e-12)
        assert error < tolerance, f"tensor {number}: relative error {error:.1e}"


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("case", [*DENSE, *MASKED], ids=str)
def test_cells_and_all_gradients_match_the_equation(case: Case) -> None:
    layout = case.layout
    inputs = draw(case, layout)
    actual, _ = run(inputs, layout, case.pool)
    assert actual[1].dtype == case.dtype
    assert all(tensor.dtype == SINGLE for tensor in [actual[0], *actual[2:]])
    tolerance = FLOAT32_TOLERANCE if case.dtype == SINGLE else BF16_TOLERANCE
    expected = truth(inputs, layout, case.pool)
    assert_same(actual, expected, tolerance)
    if case.dtype == HALF and DEVICE.type == "cpu":
        # Only what is written in bf16 may be rounded to it.
        assert_same([actual[0], *actual[2:]], [expected[0], *expected[2:]], FLOAT32_TOLERANCE)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("ratio", [None, 0.5])
def test_tokens_that_share_the_maximum_share_its_gradient(ratio: float | None) -> None:
    """All tokens are the same and the taps too weak to tell the ends apart, so all members of a cell tie."""
    case = Case(Grid(3, 4, 2), "max", ratio=ratio)
    layout = case.layout
    drawn = draw(case, layout)
    # Only the token's own tap is left, so that the zeros beyond the ends of the sequence break no tie.
    taps = drawn.conv_weight * torch.tensor([0.0, 0.0, 0.0, 1.0], device=DEVICE)
    xz = drawn.xz[:1, :1].expand_as(drawn.xz).contiguous()
    inputs = Inputs(xz, taps, drawn.conv_bias, drawn.D, drawn.dpooled, drawn.dmixed)
    actual, ties = run(inputs, layout, "max")
    assert_same(actual, truth(inputs, layout, "max"), FLOAT32_TOLERANCE)
    _, cell = layout.tables(case.batch, DEVICE)
    members = torch.zeros(2, case.batch, layout.cells, device=DEVICE).scatter_add_(
        2, cell, torch.ones(cell.shape, device=DEVICE)
    )
    torch.testing.assert_close(ties, members.unsqueeze(-1).expand_as(ties))


def test_the_mean_has_no_ties() -> None:
    case = Case(Grid(1, 2, 1))
    assert run(draw(case, case.grid), case.grid, "mean")[1].shape == (0,)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_dense_run_equals_a_masked_one_that_keeps_everything(pool: Pool) -> None:
    grid = Grid(2, 3, 2, "wrc")
    everything = Kept.from_ids(torch.arange(grid.length, device=DEVICE).expand(2, -1), grid)
    inputs = draw(Case(grid), grid)
    dense, masked = run(inputs, grid, pool)[0], run(inputs, everything, pool)[0]
    assert_same(masked, [tensor.double() for tensor in dense], FLOAT32_TOLERANCE)


def test_two_runs_give_the_same_bits() -> None:
    case = Case(Grid(3, 3, 2, "wrc"), ratio=0.5)
    layout = case.layout
    inputs = draw(case, layout)
    once, again = run(inputs, layout, "mean")[0], run(inputs, layout, "mean")[0]
    assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))
