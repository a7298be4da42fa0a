"""The fused mixer against its equation, on every fused backend: outputs and every gradient, dense and masked."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cellvim_kernels import Divisor, Grid, Kept, Layout, MixerWeights, Pool
from cellvim_kernels.availability import why_absent
from cellvim_kernels.layout import index_tables
from cellvim_kernels.pooled_mixer import naive_pooled_mixer, operator
from cellvim_kernels.pooled_mixer.operator import fused_pooled_mixer
from cellvim_kernels.stages import FUSED, FusedBackend, stages_of
from tests.kernels.mixer_cases import (
    BF16_TOLERANCE,
    FLOAT32_TOLERANCE,
    assert_same,
    draw_tokens,
    draw_weights,
    keep,
    outputs_and_gradients,
)

DEVICES: dict[FusedBackend, str] = {"cpp": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}

DENSE = [
    Grid(1, 1, 1),  # one token
    Grid(1, 2, 1, "wrc"),
    Grid(7, 1, 1),  # seven cells of one token
    Grid(1, 7, 1),  # one cell of seven
    Grid(3, 3, 1, "cwr"),
    Grid(9, 7, 1, "wrc"),  # 63 tokens
    Grid(2, 5, 5, "rwc"),
    Grid(2, 5, 5, "wrc"),
    Grid(2, 5, 5, "crw"),
    Grid(5, 2, 5, "cwr"),
    Grid(2, 7, 8, "rwc"),  # 112 tokens
    Grid(7, 4, 8, "wrc"),  # 224 tokens
    Grid(4, 7, 8, "crw"),
    Grid(3, 2, 2, "rwc", is_pooled=False),
    Grid(3, 2, 2, "cwr", is_pooled=False),
    Grid(3, 4, 2, "wrc", scale=0.25),
]
MASKED: list[tuple[Grid, float, Divisor]] = [
    (Grid(5, 4, 5, "rwc"), 0.1, "count"),
    (Grid(5, 4, 5, "wrc"), 0.25, "count"),
    (Grid(3, 6, 8, "crw"), 0.25, "width"),
    (Grid(7, 7, 1, "cwr"), 0.25, "count"),
    (Grid(3, 2, 5, "wrc"), 1.0, "count"),
    (Grid(3, 2, 5, "rwc", is_pooled=False), 0.25, "count"),
]


IS_INTERPRETED = DEVICES["triton"] == "cpu"
"""Triton's interpreter takes seconds for a case: `make interpreter` gives it all of them, `make test` a few."""


RARELY = [
    pytest.param("cpp"),
    pytest.param("triton", marks=pytest.mark.interpreter if IS_INTERPRETED else ()),
]


def cases(*parts: tuple[Pool, list[Any], tuple[int, ...]]) -> list[Any]:
    """Give C++ every case; Triton, in its interpreter, only those of the given numbers, and the rest when asked for."""
    return [
        pytest.param(
            backend,
            pool,
            case,
            marks=pytest.mark.interpreter
            if backend == "triton" and IS_INTERPRETED and number not in few
            else (),
        )
        for backend in FUSED
        for pool, all_cases, few in parts
        for number, case in enumerate(all_cases)
    ]


@pytest.fixture(autouse=True)
def _backend_is_there(backend: FusedBackend) -> None:
    reason = why_absent(backend, DEVICES[backend])
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")


@pytest.fixture(params=["cpp", "triton"])
def backend(request: pytest.FixtureRequest) -> FusedBackend:
    name: FusedBackend = request.param
    return name


def compare(
    backend: FusedBackend,
    layout: Grid | partial[Kept],
    *,
    batch: int = 2,
    inner: int = 6,
    pool: Pool = "mean",
    dtype: torch.dtype = torch.float32,
    arrange: Callable[[Tensor], Tensor] = torch.clone,
) -> None:
    """Hold a backend to float64 on the same, already rounded, tokens and weights."""
    tolerance = FLOAT32_TOLERANCE if dtype == torch.float32 else BF16_TOLERANCE
    here, there = (on_device(layout, device) for device in ("cpu", DEVICES[backend]))
    length = here.place.shape[1] if isinstance(here, Kept) else here.length
    xz = draw_tokens(batch, length, inner, dtype=dtype)
    weights = draw_weights(inner, dtype=torch.float32)
    truth = outputs_and_gradients(
        naive_pooled_mixer,
        xz.detach().double().requires_grad_(),
        MixerWeights(*(each.detach().double().requires_grad_() for each in weights if each is not None)),
        here,
        pool,
    )
    mixer = partial(fused_pooled_mixer, backend=backend)
    tokens = arrange(xz.detach()).to(DEVICES[backend]).requires_grad_()
    actual = outputs_and_gradients(mixer, tokens, moved(weights, backend, arrange), there, pool)
    assert_same([each.cpu() for each in actual], truth, tolerance)


def on_device(layout: Grid | partial[Kept], device: str) -> Layout:
    return layout if isinstance(layout, Grid) else layout(device=device)


def moved(
    weights: MixerWeights, backend: FusedBackend, arrange: Callable[[Tensor], Tensor] = torch.clone
) -> MixerWeights:
    device = DEVICES[backend]
    return MixerWeights(
        *(arrange(each.detach()).to(device).requires_grad_() for each in weights if each is not None)
    )


def tokens_of(backend: FusedBackend, batch: int, length: int, inner: int) -> Tensor:
    tokens = draw_tokens(batch, length, inner, dtype=torch.float32)
    return tokens.detach().to(DEVICES[backend]).requires_grad_()


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("backend", "pool", "grid"), cases(("mean", DENSE, (0, 7, 14)), ("max", DENSE, (7,))), ids=str
)
def test_dense_outputs_and_all_gradients_match_the_equation(
    backend: FusedBackend, grid: Grid, pool: Pool
) -> None:
    compare(backend, grid, pool=pool, batch=1 if IS_INTERPRETED and backend == "triton" else 2)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("backend", "pool", "case"), cases(("mean", MASKED, (5,)), ("max", MASKED, (5,))), ids=str
)
def test_masked_outputs_and_all_gradients_match_the_equation(
    backend: FusedBackend, pool: Pool, case: tuple[Grid, float, Divisor]
) -> None:
    grid, ratio, divisor = case
    compare(backend, partial(keep, grid, batch=3, ratio=ratio, divisor=divisor), batch=3, pool=pool)


@pytest.mark.parametrize("backend", RARELY)
@pytest.mark.parametrize("order", ["rwc", "cwr"])
def test_published_backward_rows_match_the_equation(backend: FusedBackend, order: str) -> None:
    grid = Grid(3, 5, 2, "rwc" if order == "rwc" else "cwr")
    kept = partial(keep, grid, batch=3, ratio=0.3, divisor="width", backward_rows="published")
    compare(backend, kept, batch=3)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(("backend", "pool", "inner"), cases(("mean", [3, 24, 33, 96], (2,))))
def test_any_width_matches_the_equation(backend: FusedBackend, pool: Pool, inner: int) -> None:
    compare(backend, Grid(2, 3, 2, "wrc"), inner=inner, pool=pool)


@pytest.mark.parametrize(
    ("backend", "pool", "is_masked"), cases(("mean", [False, True], ()), ("max", [False, True], (1,)))
)
def test_bf16_tokens_stay_close_to_float64(backend: FusedBackend, pool: Pool, is_masked: bool) -> None:
    grid = Grid(4, 3, 3, "wrc")
    compare(
        backend,
        partial(keep, grid, batch=2, ratio=0.25) if is_masked else grid,
        inner=24,
        pool=pool,
        dtype=torch.bfloat16,
    )


@pytest.mark.parametrize("backend", RARELY)
def test_inputs_need_not_be_contiguous(backend: FusedBackend) -> None:
    def turn(tensor: Tensor) -> Tensor:
        return tensor.mT.contiguous().mT if tensor.dim() > 1 else tensor

    compare(backend, Grid(2, 3, 2, "wrc"), arrange=turn)
    compare(backend, partial(keep, Grid(2, 3, 2, "rwc"), batch=2, ratio=0.5), arrange=turn)


def test_without_the_inner_norm_it_matches_the_equation(backend: FusedBackend) -> None:
    grid, device = Grid(3, 2, 2, "wrc"), DEVICES[backend]
    bare = draw_weights(6, dtype=torch.float32)._replace(norm_weight=None, norm_bias=None)
    xz = draw_tokens(2, grid.length, 6, dtype=torch.float32)
    results = []
    for mixer, dtype, place in (
        (naive_pooled_mixer, torch.float64, "cpu"),
        (partial(fused_pooled_mixer, backend=backend), torch.float32, device),
    ):
        tokens = xz.detach().to(place, dtype).requires_grad_()
        given = [each.detach().to(place, dtype).requires_grad_() for each in bare if each is not None]
        out = mixer(tokens, MixerWeights(*given, None, None), grid)
        gradients = torch.autograd.grad(out.square().sum(), [tokens, *given])
        results.append([each.cpu() for each in (out, *gradients)])
    assert_same(results[1], results[0], FLOAT32_TOLERANCE)


def test_equal_tokens_share_the_gradient_of_their_maximum(backend: FusedBackend) -> None:
    grid, device = Grid(2, 9, 1), DEVICES[backend]
    weights = draw_weights(6, dtype=torch.float32)
    row = draw_tokens(1, 1, 6, dtype=torch.float32).detach()
    results = []
    for mixer, dtype, place in (
        (naive_pooled_mixer, torch.float64, "cpu"),
        (partial(fused_pooled_mixer, backend=backend), torch.float32, device),
    ):
        tokens = row.expand(1, 18, -1).to(place, dtype).contiguous().requires_grad_()
        given = MixerWeights(
            *(w.detach().to(place, dtype).requires_grad_() for w in weights if w is not None)
        )
        results.append([each.cpu() for each in outputs_and_gradients(mixer, tokens, given, grid, "max")])
    assert_same(results[1], results[0], FLOAT32_TOLERANCE)


@pytest.mark.parametrize("backend", RARELY)
def test_two_runs_give_the_same_bits(backend: FusedBackend) -> None:
    layout = keep(Grid(4, 3, 5, "wrc"), batch=3, ratio=0.25, device=DEVICES[backend])
    xz, weights = tokens_of(backend, 3, layout.place.shape[1], 24), moved(draw_weights(24), backend)
    mixer = partial(fused_pooled_mixer, backend=backend)
    once = outputs_and_gradients(mixer, xz, weights, layout)
    again = outputs_and_gradients(mixer, xz, weights, layout)
    assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))


@pytest.mark.parametrize("backend", RARELY)
def test_a_grid_first_met_in_inference_can_be_trained_on(backend: FusedBackend) -> None:
    grid = Grid(3, 3, 2, "wrc")
    xz, weights = tokens_of(backend, 2, 18, 6), moved(draw_weights(6), backend)
    mixer = partial(fused_pooled_mixer, backend=backend)
    with torch.inference_mode():
        seen = mixer(xz, weights, grid)
    out, *_ = outputs_and_gradients(mixer, xz, weights, grid)
    assert torch.equal(out, seen)


@pytest.mark.parametrize(
    "layout",
    [Grid(3, 3, 2), Grid(2, 3, 1), partial(keep, Grid(3, 6, 2), batch=3, ratio=0.5)],
    ids=["longer", "shorter", "other batch"],
)
def test_tokens_that_do_not_fit_the_layout_are_refused(
    backend: FusedBackend, layout: Grid | partial[Kept]
) -> None:
    """Kernels write where tables say, so a wrong shape must not reach them."""
    xz, weights = tokens_of(backend, 2, 12, 6), moved(draw_weights(6), backend)
    with pytest.raises(operator.MismatchedTokensError, match=r"tokens are \(2, 12, 12\), but"):
        fused_pooled_mixer(xz, weights, on_device(layout, DEVICES[backend]), backend=backend)
    with pytest.raises(operator.MismatchedTokensError):
        fused_pooled_mixer(xz[..., :10], weights, Grid(2, 3, 2), backend=backend)


def test_the_way_back_under_autocast_is_the_way_back_without(backend: FusedBackend) -> None:
    grid, device = Grid(2, 2, 1, "wrc"), DEVICES[backend]
    xz, weights = tokens_of(backend, 1, 4, 6), moved(draw_weights(6, dtype=torch.float32), backend)
    mixer = partial(fused_pooled_mixer, backend=backend)
    expected = outputs_and_gradients(mixer, xz, weights, grid)
    with torch.autocast(device, torch.bfloat16):
        actual = outputs_and_gradients(mixer, xz, weights, grid)
    assert all(torch.equal(mine, truth) for mine, truth in zip(actual, expected, strict=True))


def test_a_maximum_over_nan_is_nan(backend: FusedBackend) -> None:
    xz, weights = tokens_of(backend, 1, 6, 6).detach(), moved(draw_weights(6), backend)
    xz[0, 1, 2] = torch.nan
    mixed = fused_pooled_mixer(xz, weights, Grid(1, 6, 1), "max", backend=backend)
    assert mixed.isnan().any()
    stages = stages_of(backend)
    tables = index_tables(Grid(1, 6, 1), xz.device)
    taps = weights.conv_weight.detach().float(), weights.conv_bias.detach().float()
    pooled, _ = stages.conv_pool(xz, *taps, tables, "max")
    assert pooled[:, 0, 0, 2].isnan().all()
    assert pooled[:, 0, 0, :2].isfinite().all()


@pytest.mark.parametrize("backend", RARELY)
def test_the_operators_keep_pytorchs_rules_for_operators(backend: FusedBackend) -> None:
    """Schema, fake tensors, autograd registration and tracing, as PyTorch's own examination has it."""
    xz, weights = tokens_of(backend, 2, 12, 6), moved(draw_weights(6, dtype=torch.float32), backend)
    arguments = (xz, [*weights], *operator._described(Grid(2, 3, 2, "wrc")), "mean", backend, True)
    torch.library.opcheck(operator._pooled_mixer, arguments)


@pytest.mark.parametrize("backend", RARELY)
def test_a_compiled_block_is_one_graph_and_gives_the_same_numbers(backend: FusedBackend) -> None:
    """In a process of its own: a compiler cannot trace the checks of types that tests put around functions."""
    script = Path(__file__).with_name("compiled_block.py")
    subprocess.run([sys.executable, str(script), backend, DEVICES[backend]], check=True)
