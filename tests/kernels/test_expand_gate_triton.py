"""The fused expansion against its equation: result, every gradient, dense and masked, run by Triton's interpreter."""

import os
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

# Before Triton is imported: what it finds then decides for its own functions too.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="needs Triton, which exists for Linux alone")

from cellvim_kernels import BackwardRows, Grid, Layout, Order
from cellvim_kernels.conv_pool import naive_conv_pool
from cellvim_kernels.expand_gate import naive_expand_gate
from cellvim_kernels.expand_gate.triton import expand_gate, expand_gate_backward, sum_cells
from cellvim_kernels.layout import index_tables
from tests.kernels.mixer_cases import BF16_TOLERANCE, FLOAT32_TOLERANCE, keep

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.usefixtures("_poisoned_memory")


class Inputs(NamedTuple):
    """Of both directions, as the fused path takes them."""

    xz: Tensor
    y: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    D: Tensor
    norm: tuple[Tensor, Tensor] | None
    dout: Tensor


class Results(NamedTuple):
    out: Tensor
    dz: Tensor
    dmixed: Tensor
    dscale: Tensor | None
    dshift: Tensor | None
    dy: Tensor


def draw(
    layout: Layout, batch: int, width: int, *, has_norm: bool = True, dtype: torch.dtype = torch.float32
) -> Inputs:
    length = layout.tables(batch, torch.device("cpu"))[0].shape[1]
    generator = torch.Generator().manual_seed(length * width)

    def values(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(DEVICE)

    # Away from zero, because the gradient of the mixed value is found by dividing by it.
    D = values(2, width)
    return Inputs(
        xz=values(batch, length, 2 * width).to(dtype),
        y=values(2, batch, layout.cells, width),
        conv_weight=values(2, width, 4, scale=0.5),
        conv_bias=values(2, width, scale=0.5),
        D=D.sign() * (D.abs() + 0.3),
        norm=(values(width), values(width)) if has_norm else None,
        dout=values(batch, length, width).to(dtype),
    )


def fused(inputs: Inputs, layout: Layout) -> Results:
    tables = index_tables(layout, DEVICE)
    xz, y, conv_weight, conv_bias, D, norm, dout = inputs
    weights = conv_weight, conv_bias, D, norm
    out = expand_gate(xz, y, *weights, tables)
    dxz = torch.full_like(xz, torch.nan)
    dmixed, dscale, dshift = expand_gate_backward(dout, xz, y, *weights, tables, dxz)
    dx, dz = dxz.chunk(2, dim=-1)
    assert dx.isnan().all(), "the half of x belongs to another stage"
    return Results(out, dz, dmixed, dscale, dshift, sum_cells(dmixed, tables))


def defined(inputs: Inputs, layout: Layout) -> Results:
    """By autograd through the equation, in float64 on the same rounded inputs."""
    wide = [tensor.cpu().double() for tensor in (*inputs[:5], inputs.dout)]
    xz, y, conv_weight, conv_bias, D, dout = wide
    norm = None
    if inputs.norm is not None:
        scale, shift = (tensor.cpu().double().requires_grad_() for tensor in inputs.norm)
        norm = scale, shift
    _, local = naive_conv_pool(xz, conv_weight, conv_bias, layout)
    for leaf in (xz, y, local):
        leaf.requires_grad_()
    out = naive_expand_gate(xz, y, local, D, norm, layout)
    dxz, dy, dlocal, *dnorm = torch.autograd.grad(out, (xz, y, local, *(norm or ())), dout)
    assert not dxz[..., : D.shape[1]].any()
    dmixed = dlocal[0] / (0.5 * D[0])
    dscale, dshift = dnorm or (None, None)
    shared = isinstance(layout, Grid) or layout.bins[0] is layout.bins[1]
    return Results(out, dxz[..., D.shape[1] :], dmixed, dscale, dshift, dy[:1] if shared else dy)


def assert_same(found: Results, expected: Results, tolerance: float) -> None:
    for name, value, reference in zip(Results._fields, found, expected, strict=True):
        if value is None or reference is None:
            assert value is reference, name
            continue
        assert value.shape == reference.shape, name
        error = (value.cpu().double() - reference).norm() / reference.norm()
        assert error < tolerance, f"{name}: {error}"


def check(layout: Layout, batch: int, width: int, *, has_norm: bool = True) -> None:
    inputs = draw(layout, batch, width, has_norm=has_norm)
    assert_same(fused(inputs, layout), defined(inputs, layout), FLOAT32_TOLERANCE)


@pytest.mark.parametrize(
    ("order", "channels"),
    [("rwc", 5), ("wrc", 5), ("crw", 5), ("cwr", 5), ("wrc", 1), ("rwc", 8), ("cwr", 8)],
)
def test_grid_in_every_order(order: Order, channels: int) -> None:
    check(Grid(2, 2, channels, order), batch=2, width=6)


@pytest.mark.parametrize(("width", "has_norm"), [(6, False), (24, True), (33, True), (33, False), (96, True)])
def test_width(width: int, has_norm: bool) -> None:
    check(Grid(2, 3, 1, "crw"), batch=2, width=width, has_norm=has_norm)


@pytest.mark.parametrize(
    ("length", "is_pooled", "batch"),
    [(1, True, 3), (2, False, 3), (7, True, 3), (7, False, 3), (63, True, 2)],
)
def test_length(length: int, is_pooled: bool, batch: int) -> None:
    check(Grid(1, length, 1, is_pooled=is_pooled), batch, width=6)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 1])
@pytest.mark.parametrize("rows", ["corrected", "published"])
def test_kept_tokens(ratio: float, rows: BackwardRows) -> None:
    check(
        keep(Grid(4, 3, 2, "wrc"), batch=2, ratio=ratio, backward_rows=rows, device=str(DEVICE)),
        batch=2,
        width=6,
    )


@pytest.mark.parametrize("order", ["rwc", "crw", "cwr"])
def test_kept_tokens_in_other_orders(order: Order) -> None:
    check(
        keep(Grid(3, 3, 2, order), batch=2, ratio=0.5, backward_rows="published", device=str(DEVICE)),
        batch=2,
        width=6,
        has_norm=False,
    )


def test_more_members_than_are_read_at_a_time() -> None:
    check(keep(Grid(2, 11, 1), batch=2, ratio=0.9, device=str(DEVICE)), batch=2, width=6, has_norm=False)


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize("is_masked", [True, False])
def test_bf16_tokens(has_norm: bool, is_masked: bool) -> None:
    grid = Grid(3, 2, 2, "wrc")
    layout = keep(grid, batch=2, ratio=0.7, device=str(DEVICE)) if is_masked else grid
    inputs = draw(layout, 2, 24, has_norm=has_norm, dtype=torch.bfloat16)
    found = fused(inputs, layout)
    assert found.out.dtype == found.dmixed.dtype == torch.bfloat16
    assert found.dy.dtype == torch.float32
    assert_same(found, defined(inputs, layout), BF16_TOLERANCE)


def test_a_constant_row_is_no_division_by_zero() -> None:
    """Weights of zero leave every channel of a row alike: its variance is zero, and the gradient stays finite."""
    grid = Grid(2, 2, 2)
    inputs = draw(grid, 2, 6)
    y, taps, bias = (torch.zeros_like(each) for each in (inputs.y, inputs.conv_weight, inputs.conv_bias))
    results = fused(inputs._replace(y=y, conv_weight=taps, conv_bias=bias), grid)
    assert all(tensor.isfinite().all() for tensor in results if tensor is not None)


def test_two_runs_give_the_same_bits() -> None:
    layout = keep(Grid(4, 3, 1), batch=2, ratio=0.5, backward_rows="published", device=str(DEVICE))
    inputs = draw(layout, 2, 33)
    for once, again in zip(fused(inputs, layout), fused(inputs, layout), strict=True):
        assert once is not None
        assert again is not None
        assert torch.equal(once, again)


def test_programs_walk_further_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of a long walk go on from step to step, and the last walk of a sample may be shorter."""
    monkeypatch.setattr("cellvim_kernels.expand_gate.triton_mix.MANY_PROGRAMS", 4)
    check(Grid(3, 6, 1), batch=2, width=6)
