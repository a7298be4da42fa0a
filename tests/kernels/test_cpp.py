"""Each C++ operation against its equation in float64: outputs and every gradient, dense and masked."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvim_kernels import RMS_NORM_EPS, Grid, Kept, Layout, Pool, ScanInputs
from cellvim_kernels.add_rms_norm import cpp as norm_cpp
from cellvim_kernels.add_rms_norm import naive_add_rms_norm
from cellvim_kernels.conv_pool import cpp as conv_cpp
from cellvim_kernels.conv_pool import naive_conv_pool
from cellvim_kernels.cpp import CompileUnavailableError, build, load
from cellvim_kernels.cpp.call import UnsupportedTensorError
from cellvim_kernels.expand_gate import NORM_EPS, naive_expand_gate
from cellvim_kernels.expand_gate import cpp as gate_cpp
from cellvim_kernels.layout import index_tables
from cellvim_kernels.selective_scan import cpp as scan_cpp
from cellvim_kernels.selective_scan import naive_selective_scan
from tests.kernels.mixer_cases import FLOAT32_TOLERANCE, ORDERS, keep

CPU = torch.device("cpu")

# Lengths 1, 2, 7, 63 and 112; 1, 5 and 8 channels; with widths that fill vectors, and that do not.
DENSE: list[tuple[Grid, int]] = [
    (Grid(1, 1, 1), 24),
    (Grid(1, 2, 1, "wrc"), 33),
    (Grid(7, 1, 1), 6),
    *((Grid(1, 7, 1, order), 33) for order in ORDERS),
    (Grid(9, 7, 1), 33),
    (Grid(7, 9, 1, "cwr"), 6),
    *((Grid(2, 3, 5, order), 24) for order in ORDERS),
    *((Grid(2, 7, 8, order), width) for order, width in zip(ORDERS, (96, 33, 24, 6), strict=True)),
    (Grid(3, 2, 2, is_pooled=False), 24),
    (Grid(3, 2, 5, "cwr", is_pooled=False), 33),
    (Grid(3, 4, 2, "wrc", scale=0.25), 24),
]
# Every sample of them but the first has all rows; `keep` leaves the first sample's first row empty.
MASKED: list[tuple[Kept, int]] = [
    (keep(Grid(5, 4, 5), batch=3, ratio=0.1), 33),
    *((keep(Grid(4, 3, 8, order), batch=3, ratio=0.25), 24) for order in ORDERS),
    (keep(Grid(7, 7, 1, "cwr"), batch=3, ratio=0.25), 96),
    (keep(Grid(3, 2, 5, "wrc"), batch=3, ratio=1.0), 6),
    (keep(Grid(4, 4, 5, "wrc"), batch=3, ratio=0.25, divisor="width"), 33),
    *(
        (keep(Grid(4, 3, 5, order), batch=3, ratio=0.3, divisor="width", backward_rows="published"), 24)
        for order in ORDERS
    ),
    (keep(Grid(3, 2, 5, is_pooled=False), batch=3, ratio=0.25), 33),
]
CASES: list[tuple[Layout, int]] = [*DENSE, *MASKED]


def name_case(number: int, layout: Layout, width: int) -> str:
    if isinstance(layout, Grid):
        return f"dense-{number}-width{width}"
    return f"{'kept' if layout.bins[0] is layout.bins[1] else 'published'}-{number}-width{width}"


IDS = [name_case(number, *case) for number, case in enumerate(CASES)]

pytestmark = pytest.mark.usefixtures("_poisoned_memory")


@pytest.fixture(autouse=True, scope="module")
def _compiler() -> None:
    try:
        load()
    except CompileUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator) * scale


def wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double().requires_grad_() for tensor in tensors]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for number, (mine, truth) in enumerate(zip(actual, expected, strict=True)):
        assert mine.shape == truth.shape
        assert mine.isfinite().all(), f"tensor {number}"
        error = (mine.double() - truth).norm() / truth.norm().clamp(min=1e-12)
        assert error < FLOAT32_TOLERANCE, f"tensor {number}: relative error {error:.1e}"


def sizes(layout: Layout) -> tuple[int, int]:
    return (2, layout.length) if isinstance(layout, Grid) else tuple(layout.sequence.shape)


def conv_tensors(layout: Layout, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """xz, taps, bias, D."""
    batch, length = sizes(layout)
    taps = draw(2, width, 4, seed=1, scale=0.5)
    return draw(batch, length, 2 * width), taps, draw(2, width, seed=2), draw(2, width, seed=3)


def run_conv_pool(
    layout: Layout, pool: Pool, xz: Tensor, taps: Tensor, bias: Tensor, D: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """All that the C++ computes, and the gradients that it was given."""
    tables, width = index_tables(layout, CPU), D.shape[1]
    pooled, ties = conv_cpp.conv_pool(xz, taps, bias, tables, pool)
    dpooled, dmixed = draw(*pooled.shape, seed=4), draw(*xz.shape[:2], width, seed=5)
    dxz = torch.zeros_like(xz)
    gradients = conv_cpp.conv_pool_backward(
        xz, taps, bias, D, tables, pool, pooled, ties, dpooled, dmixed, dxz
    )
    assert not dxz[..., width:].any()
    return [pooled, dxz, *gradients], dpooled, dmixed


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(("layout", "width"), CASES, ids=IDS)
def test_conv_pool_matches_the_equation(layout: Layout, width: int, pool: Pool) -> None:
    given = conv_tensors(layout, width)
    actual, dpooled, dmixed = run_conv_pool(layout, pool, *given)
    xz, taps, bias, D = wide(*given)
    pooled, local = naive_conv_pool(xz, taps, bias, layout, pool)
    mixed = 0.5 * (D[0] * local[0] + D[1] * local[1])
    loss = (pooled * dpooled).sum() + (mixed * dmixed).sum()
    assert_close(actual, [pooled, *torch.autograd.grad(loss, [xz, taps, bias, D])])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("is_masked", [False, True])
def test_tied_maxima_share_their_gradient(order: str, is_masked: bool) -> None:
    """Equal tokens give equal bits wherever they are convolved, so all of a cell tie."""
    grid = Grid(3, 4, 2, order)
    layout = keep(grid, batch=2, ratio=0.5) if is_masked else grid
    xz, taps, bias, D = conv_tensors(layout, 24)
    taps[..., :-1] = 0  # a token's neighbours, which the ends of the sequence lack
    constant = xz[:1, :1].expand_as(xz).contiguous()
    tables = index_tables(layout, CPU)
    _, ties = conv_cpp.conv_pool(constant, taps, bias, tables, "max")
    count = tables.first.diff(dim=-1)
    assert torch.equal(ties, count.unsqueeze(-1).expand(2, len(xz), -1, 24).float())
    actual, dpooled, dmixed = run_conv_pool(layout, "max", constant, taps, bias, D)
    x, *rest = wide(constant, taps, bias, D)
    pooled, local = naive_conv_pool(x, rest[0], rest[1], layout, "max")
    mixed = 0.5 * (rest[2][0] * local[0] + rest[2][1] * local[1])
    loss = (pooled * dpooled).sum() + (mixed * dmixed).sum()
    assert_close(actual, [pooled, *torch.autograd.grad(loss, [x, *rest])])


def scan_tensors(batch: int, cells: int, width: int, states: int) -> list[Tensor]:
    """u, step, bias, A, B, C; B and C are views of one projection."""
    projected = draw(2, batch, cells, 5 + 2 * states, seed=1)
    _, B, C = projected.split([5, states, states], dim=-1)
    A = -draw(2, width, states, seed=2).exp()
    u, step = (draw(2, batch, cells, width, seed=seed) for seed in (3, 4))
    return [u, step, draw(2, width, seed=5), A, B, C]


def run_scan(directions: int, given: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    u = given[0]
    y, starts = scan_cpp.selective_scan(*given, keeps_states=True)
    without, nothing = scan_cpp.selective_scan(*given, keeps_states=False)
    assert torch.equal(y, without)
    assert nothing.shape == (0,)
    dy = draw(directions, *u.shape[1:], seed=6)
    return [y, *scan_cpp.selective_scan_backward(dy, *given, starts)], dy


@pytest.mark.parametrize(
    ("batch", "cells", "width", "states", "directions"),
    [
        (2, 1, 6, 2, 1),
        (2, 2, 24, 4, 2),
        (3, 7, 33, 4, 1),
        (2, 16, 24, 16, 1),
        (2, 17, 33, 16, 2),
        (2, 63, 96, 16, 1),
        (3, 112, 6, 3, 1),
        (2, 33, 150, 16, 1),
        (2, 224, 24, 16, 2),
    ],
)
def test_scan_matches_the_equation(batch: int, cells: int, width: int, states: int, directions: int) -> None:
    given = scan_tensors(batch, cells, width, states)
    actual, dy = run_scan(directions, given)
    u, step, bias, A, B, C = wide(*given)
    delta = functional.softplus(step + bias[:, None, None, :])
    y, _ = naive_selective_scan(ScanInputs(u, delta, A, B, C))
    assert_close(actual, [y, *torch.autograd.grad((y * dy).sum(), [u, step, A, B, C])])


@pytest.mark.parametrize("rate", [1e-3, 30.0])
def test_slow_and_fast_decays_stay_exact_over_many_cells(rate: float) -> None:
    u, step, bias, A, B, C = scan_tensors(1, 600, 6, 4)
    given = [u, torch.full_like(step, -3.0), bias * 0, torch.full_like(A, -rate), B, C]
    actual, _ = run_scan(1, given)
    delta = functional.softplus(given[1].double())
    y, _ = naive_selective_scan(ScanInputs(u.double(), delta, *(each.double() for each in given[3:])))
    assert_close(actual[:1], [y])


def run_expand_gate(
    layout: Layout, has_norm: bool, xz: Tensor, taps: Tensor, bias: Tensor, D: Tensor
) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor], Tensor]:
    """Results; y, scale and shift; the gradient that was given."""
    tables, width = index_tables(layout, CPU), D.shape[1]
    y = draw(2, len(xz), layout.cells, width, seed=4)
    scale, shift = draw(width, seed=5), draw(width, seed=6)
    given = xz, y, taps, bias, D, (scale, shift) if has_norm else None, tables
    out, dxz = gate_cpp.expand_gate(*given), torch.zeros_like(xz)
    dout = draw(*out.shape, seed=7)
    dmixed, *dnorm = gate_cpp.expand_gate_backward(dout, *given, dxz)
    assert not dxz[..., :width].any()
    dy = gate_cpp.sum_cells(dmixed, tables).expand(2, -1, -1, -1)
    kept = [each for each in dnorm if each is not None]
    assert len(kept) == 2 * has_norm
    return [out, dxz, dmixed, dy, *kept], (y, scale, shift), dout


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize(("layout", "width"), CASES, ids=IDS)
def test_expand_gate_matches_the_equation(layout: Layout, width: int, has_norm: bool) -> None:
    given = conv_tensors(layout, width)
    actual, parts, dout = run_expand_gate(layout, has_norm, *given)
    xz, taps, bias, D, y, scale, shift = wide(*given, *parts)
    _, local = naive_conv_pool(xz, taps, bias, layout)
    local = local.detach().requires_grad_()
    norm = (scale, shift) if has_norm else None
    out = naive_expand_gate(xz, y, local, D, norm, layout)
    wanted = [xz, local, y, *([scale, shift] if has_norm else [])]
    dxz, dlocal, dy, *dnorm = torch.autograd.grad((out * dout).sum(), wanted)
    # The local path weighs what reaches the mixed tokens by half of D.
    dmixed = (2 * dlocal[0] / D[0]).detach()
    assert_close(actual, [out, dxz, dmixed, dy, *dnorm])


def test_the_norm_holds_where_the_mean_is_large() -> None:
    layout = Grid(2, 3, 2)
    xz, taps, bias, D = conv_tensors(layout, 96)
    y = draw(2, 2, layout.cells, 96, seed=4) + 30
    norm = draw(96, seed=5), draw(96, seed=6)
    out = gate_cpp.expand_gate(xz, y, taps, bias, D, norm, index_tables(layout, CPU))
    _, local = naive_conv_pool(*(each.double() for each in (xz, taps, bias)), layout)
    expected = naive_expand_gate(
        xz.double(), y.double(), local, D.double(), (norm[0].double(), norm[1].double()), layout
    )
    assert (out - expected).norm() / expected.norm() < FLOAT32_TOLERANCE


@pytest.mark.parametrize("shape", [(1, 6), (3, 70, 33), (2, 65, 96), (130, 24)])
def test_add_rms_norm_matches_the_equation(shape: tuple[int, ...]) -> None:
    tokens, residual, weight = draw(*shape), draw(*shape, seed=1), draw(shape[-1], seed=2)
    dnormed, dstream = draw(*shape, seed=3), draw(*shape, seed=4)
    normed, stream, scale = norm_cpp.add_rms_norm(tokens, residual, weight)
    total, dweight = norm_cpp.add_rms_norm_backward(dnormed, dstream, stream, scale, weight)
    inputs = wide(tokens, residual, weight)
    expected = naive_add_rms_norm(*inputs)
    loss = (expected[0] * dnormed).sum() + (expected[1] * dstream).sum()
    gradients = torch.autograd.grad(loss, inputs)
    assert_close([normed, stream, total, total, dweight], [*expected, *gradients])
    assert scale.shape == shape[:-1]


def everything(layout: Layout, width: int) -> list[Tensor]:
    tensors = conv_tensors(layout, width)
    conv = [part for pool in ("mean", "max") for part in run_conv_pool(layout, pool, *tensors)[0]]
    scan, _ = run_scan(1, scan_tensors(len(tensors[0]), layout.cells, width, 16))
    gate, _, _ = run_expand_gate(layout, True, *tensors)
    tokens, weight = tensors[0], tensors[0][0, 0].clone()
    rms = norm_cpp.add_rms_norm(tokens, tokens, weight)
    return [*conv, *scan, *gate, *rms, *norm_cpp.add_rms_norm_backward(tokens, tokens, *rms[1:], weight)]


@pytest.mark.parametrize(
    ("layout", "width"), [(Grid(5, 7, 5, "wrc"), 264), (MASKED[1][0], 33), (Grid(1, 2, 1), 150)]
)
def test_runs_and_numbers_of_threads_give_the_same_bits(
    layout: Layout, width: int, set_threads: Callable[[int], None]
) -> None:
    results = []
    for threads in (1, 1, 2, 3):
        set_threads(threads)
        results.append(everything(layout, width))
    for other in results[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results[0], other, strict=True))


def test_extreme_inputs_give_what_they_must() -> None:
    """Where exp overflows SiLU is 0 or the identity, and NaN stays NaN."""
    layout = Grid(1, 1, 5, is_pooled=False)
    xz = torch.zeros(1, 5, 12)
    xz[0, :, 0] = torch.tensor([200.0, -200.0, -1e30, 1e30, float("nan")])
    taps = torch.zeros(2, 6, 4)
    taps[..., -1] = 1
    pooled, _ = conv_cpp.conv_pool(xz, taps, torch.zeros(2, 6), index_tables(layout, CPU), "mean")
    assert pooled[0, 0, :4, 0].tolist() == pytest.approx([200.0, 0.0, 0.0, 1e30], rel=1e-6, abs=1e-6)
    assert pooled[0, 0, 4, 0].isnan()
    assert not pooled[0, 0, :4, 1:].any()


def test_what_the_kernels_cannot_read_is_refused() -> None:
    layout = Grid(1, 2, 1)
    xz, taps, bias, _ = conv_tensors(layout, 6)
    tables = index_tables(layout, CPU)
    with pytest.raises(UnsupportedTensorError, match="float64"):
        conv_cpp.conv_pool(xz.double(), taps, bias, tables, "mean")
    with pytest.raises(UnsupportedTensorError, match="strides"):
        conv_cpp.conv_pool(xz.mT.contiguous().mT, taps, bias, tables, "mean")
    with pytest.raises(conv_cpp.UnsupportedTapsError, match="got 3 taps"):
        conv_cpp.conv_pool(xz, taps[..., :3], bias, tables, "mean")
    with pytest.raises(scan_cpp.UnsupportedStateError, match="got 300"):
        scan_cpp.selective_scan(*scan_tensors(1, 1, 1, 300), keeps_states=False)


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("selective_scan/cpu.cpp", "CHUNK", scan_cpp.CHUNK),
        ("selective_scan/cpu.cpp", "PIECE", scan_cpp.PIECE),
        ("selective_scan/cpu.cpp", "MOST_STATES", scan_cpp.MOST_STATES),
        ("cpp/sequence.hpp", "TAPS", conv_cpp.TAPS),
        ("expand_gate/cpu.cpp", "CHUNK", gate_cpp.CHUNK),
        ("expand_gate/cpu.cpp", "EPS", NORM_EPS),
        ("add_rms_norm/cpu.cpp", "CHUNK", norm_cpp.CHUNK),
        ("add_rms_norm/cpu.cpp", "EPS", RMS_NORM_EPS),
    ],
)
def test_constants_are_the_same_in_both_languages(source: str, name: str, value: float) -> None:
    found = re.search(rf"\b{name} = ([\d.e-]+)", (build.PACKAGE / source).read_text())
    assert found is not None
    assert float(found[1]) == value
