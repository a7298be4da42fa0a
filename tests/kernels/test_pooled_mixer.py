"""The token-major mixer against its equation: outputs and every gradient, dense and masked."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvim_kernels import BackwardRows, Grid, Kept, MixerWeights, Order, Pool, grid_tables
from cellvim_kernels.pooled_mixer import naive_pooled_mixer, token_major, token_major_pooled_mixer
from cellvim_kernels.pooled_mixer.gather import pool_cells
from cellvim_kernels.selective_scan import ScanInputs, token_major_selective_scan
from tests.kernels.mixer_cases import (
    BF16_TOLERANCE,
    FLOAT32_TOLERANCE,
    FLOAT64_TOLERANCE,
    ORDERS,
    Mixer,
    assert_same,
    draw_tokens,
    draw_weights,
    keep,
    outputs_and_gradients,
)


def grids() -> list[Grid]:
    chosen = [
        Grid(rows, cols, channels, order)
        for rows, cols, channels in ((3, 3, 1), (2, 5, 5), (1, 1, 5))
        for order in ORDERS
    ]
    unpooled = [Grid(3, 2, 2, "rwc", is_pooled=False), Grid(3, 2, 2, "cwr", is_pooled=False)]
    return [*chosen, Grid(5, 2, 8, "wrc"), *unpooled]


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("grid", grids(), ids=str)
def test_dense_outputs_and_all_gradients_match_the_equation(grid: Grid, pool: Pool) -> None:
    xz, weights = draw_tokens(2, grid.length, 6), draw_weights(6)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, grid, pool)
    actual = outputs_and_gradients(token_major_pooled_mixer, xz, weights, grid, pool)
    assert_same(actual, expected, FLOAT64_TOLERANCE)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("grid", grids(), ids=str)
def test_masked_outputs_and_all_gradients_match_the_equation(grid: Grid, pool: Pool, ratio: float) -> None:
    kept = keep(grid, batch=3, ratio=ratio)
    xz, weights = draw_tokens(3, kept.place.shape[1], 6), draw_weights(6)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, kept, pool)
    actual = outputs_and_gradients(token_major_pooled_mixer, xz, weights, kept, pool)
    assert_same(actual, expected, FLOAT64_TOLERANCE)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("backward_rows", ["corrected", "published"])
def test_divisor_and_backward_rows_match_the_equation(
    order: Order, pool: Pool, backward_rows: BackwardRows
) -> None:
    grid = Grid(3, 5, 2, order)
    kept = keep(grid, batch=3, ratio=0.3, divisor="width", backward_rows=backward_rows)
    xz, weights = draw_tokens(3, kept.place.shape[1], 6), draw_weights(6)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, kept, pool)
    actual = outputs_and_gradients(token_major_pooled_mixer, xz, weights, kept, pool)
    assert_same(actual, expected, FLOAT64_TOLERANCE)
    if backward_rows == "published":
        plain = token_major_pooled_mixer(xz, weights, keep(grid, batch=3, ratio=0.3, divisor="width"), pool)
        assert not torch.allclose(plain, actual[0])


@pytest.mark.parametrize("order", ORDERS)
def test_scaled_means_match_the_equation_and_are_what_the_width_divides_by(order: Order) -> None:
    grid = Grid(3, 4, 2, order, scale=0.25)
    xz, weights = draw_tokens(2, grid.length, 6), draw_weights(6)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, grid)
    assert_same(
        outputs_and_gradients(token_major_pooled_mixer, xz, weights, grid), expected, FLOAT64_TOLERANCE
    )
    # One token of four in each cell, divided by four, is a quarter of that token.
    whole = Grid(2, 4, 1, "rwc")
    ids = torch.tensor([[1, 6]])
    few = draw_tokens(1, 2, 6)
    alone = token_major_pooled_mixer(few, weights, Grid(2, 1, 1, scale=0.25))
    divided = token_major_pooled_mixer(few, weights, Kept.from_ids(ids, whole, divisor="width"))
    torch.testing.assert_close(alone, divided)


def test_without_the_inner_norm_both_paths_agree() -> None:
    grid, weights = Grid(3, 2, 2, "wrc"), draw_weights(6)._replace(norm_weight=None, norm_bias=None)
    xz = draw_tokens(2, grid.length, 6)
    given = [tensor for tensor in weights if tensor is not None]
    results = []
    for mixer in (naive_pooled_mixer, token_major_pooled_mixer):
        out = mixer(xz, weights, grid, "mean")
        results.append([out, *torch.autograd.grad(out.square().sum(), [xz, *given])])
    assert_same(results[1], results[0], FLOAT64_TOLERANCE)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mixer", [naive_pooled_mixer, token_major_pooled_mixer])
def test_gradients_match_finite_differences(mixer: Mixer, order: Order) -> None:
    grid = Grid(2, 2, 1, order)
    layout = keep(grid, batch=1, ratio=0.75) if order == "wrc" else grid
    length = 3 if order == "wrc" else 4
    xz, weights = draw_tokens(1, length, 2), draw_weights(2, state=2, rank=1)
    assert torch.autograd.gradcheck(
        lambda tokens, *rest: mixer(tokens, MixerWeights(*rest), layout, "mean"), (xz, *weights)
    )


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("order", ORDERS)
def test_float32_stays_close_to_float64(order: Order, pool: Pool) -> None:
    grid = Grid(5, 7, 3, order)
    layout = keep(grid, batch=2, ratio=0.25) if pool == "mean" else grid
    length = layout.place.shape[1] if isinstance(layout, Kept) else grid.length
    single = torch.float32
    xz, weights = draw_tokens(2, length, 24), draw_weights(24, state=16)
    expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, layout, pool)
    tokens, rounded = draw_tokens(2, length, 24, dtype=single), draw_weights(24, state=16, dtype=single)
    actual = outputs_and_gradients(token_major_pooled_mixer, tokens, rounded, layout, pool)
    assert_same(actual, expected, FLOAT32_TOLERANCE)


@pytest.mark.parametrize("mixer", [naive_pooled_mixer, token_major_pooled_mixer])
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("order", ORDERS)
def test_bf16_tokens_stay_close_to_float64(order: Order, pool: Pool, is_masked: bool, mixer: Mixer) -> None:
    """As under autocast: tokens in bf16, parameters in float32. The truth reads the rounded tokens."""
    grid = Grid(5, 7, 3, order)
    layout = keep(grid, batch=2, ratio=0.25) if is_masked else grid
    length = layout.place.shape[1] if isinstance(layout, Kept) else grid.length
    tokens = draw_tokens(2, length, 24, dtype=torch.bfloat16)
    weights = draw_weights(24, state=16, dtype=torch.float32)
    exact = MixerWeights(*(tensor.detach().double().requires_grad_() for tensor in weights))
    exact_tokens = tokens.detach().double().requires_grad_()
    expected = outputs_and_gradients(naive_pooled_mixer, exact_tokens, exact, layout, pool)
    actual = outputs_and_gradients(mixer, tokens, weights, layout, pool)
    assert [tensor.dtype for tensor in actual] == [torch.bfloat16] * 2 + [torch.float32] * 9
    assert_same(actual, expected, BF16_TOLERANCE)


def test_bf16_tokens_are_scanned_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recording_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
        seen.extend(tensor.dtype for tensor in inputs)
        return token_major_selective_scan(inputs)

    monkeypatch.setattr(token_major, "token_major_selective_scan", recording_scan)
    weights = draw_weights(6, dtype=torch.float32)
    token_major_pooled_mixer(draw_tokens(1, 6, 6, dtype=torch.bfloat16), weights, Grid(2, 3, 1))
    # u, delta, A, B, C: both the step and the rate of decay are exact to 24 bits.
    assert seen == [torch.float32] * 5


@pytest.mark.parametrize("order", ORDERS)
def test_inputs_need_not_be_contiguous(order: Order) -> None:
    grid = Grid(2, 3, 2, order)
    for layout, length in ((grid, 12), (keep(grid, batch=2, ratio=0.5), 6)):
        xz, weights = draw_tokens(2, length, 6), draw_weights(6)
        strided = xz.detach().mT.contiguous().mT.requires_grad_()
        turned = MixerWeights(
            *(
                tensor.detach().mT.contiguous().mT.requires_grad_() if tensor.dim() > 1 else tensor
                for tensor in weights
            )
        )
        expected = outputs_and_gradients(naive_pooled_mixer, xz, weights, layout)
        assert_same(
            outputs_and_gradients(token_major_pooled_mixer, strided, turned, layout),
            expected,
            FLOAT64_TOLERANCE,
        )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_dense_input_equals_a_masked_one_that_keeps_everything(order: Order, pool: Pool) -> None:
    grid = Grid(3, 4, 2, order)
    xz, weights = draw_tokens(2, grid.length, 6), draw_weights(6)
    everything = Kept.from_ids(torch.arange(grid.length).expand(2, -1), grid)
    dense = outputs_and_gradients(token_major_pooled_mixer, xz, weights, grid, pool)
    masked = outputs_and_gradients(token_major_pooled_mixer, xz, weights, everything, pool)
    assert_same(masked, dense, FLOAT64_TOLERANCE)


def test_a_maximum_of_zero_shares_its_gradient_among_tokens_alone() -> None:
    """Every token is zero, so all tokens of a cell tie, and nothing else may: each gets its share, a cell gives one."""
    layout = keep(Grid(3, 4, 2), batch=2, ratio=0.5)
    tokens = torch.zeros(2, 12, 6, dtype=torch.float64, requires_grad=True)
    for direction, bins in enumerate(layout.bins):
        pooled = pool_cells(tokens, layout, "max", direction)
        assert not pooled.any()
        (gradient,) = torch.autograd.grad(pooled.sum(), tokens)
        shares = 1 / bins.count.gather(1, bins.cell).unsqueeze(-1).expand_as(tokens)
        torch.testing.assert_close(gradient, shares.double())


@pytest.mark.parametrize("mixer", [naive_pooled_mixer, token_major_pooled_mixer])
def test_the_backward_direction_sees_the_reversed_tokens_in_the_reversed_rows(mixer: Mixer) -> None:
    """Swapping the directions' weights and reversing the tokens with their rows reverses the result."""
    grid = Grid(4, 3, 1)
    ids = torch.tensor([[0, 1, 5, 6, 8, 11]])
    reversed_ids = grid.length - 1 - ids.flip(1)
    xz, weights = draw_tokens(1, 6, 6), draw_weights(6)
    swapped = MixerWeights(
        *(
            tensor.flip(0) if name not in ("norm_weight", "norm_bias") else tensor
            for name, tensor in weights._asdict().items()
        )
    )
    there = mixer(xz, weights, Kept.from_ids(ids, grid), "mean")
    back = mixer(xz.flip(1), swapped, Kept.from_ids(reversed_ids, grid), "mean")
    torch.testing.assert_close(back.flip(1), there)


def test_naive_is_the_published_words_on_one_row() -> None:
    """Flip, causal convolution by torch, mean, scan written out, flip back: one sample, one cell, one state."""
    xz, weights = draw_tokens(1, 5, 2), draw_weights(2, state=1, rank=1)
    x, z = xz[0].split(2, dim=-1)
    total = torch.zeros(5, 2, dtype=torch.float64)
    for direction in (0, 1):
        tokens = x if direction == 0 else x.flip(0)
        padded = functional.pad(tokens.T[None], (3, 0))
        taps = weights.conv_weight[direction][:, None]
        local = functional.silu(functional.conv1d(padded, taps, weights.conv_bias[direction], groups=2))[0].T
        pooled = local.mean(0)
        low_rank, B, C = weights.x_proj[direction] @ pooled
        delta = functional.softplus(
            weights.dt_weight[direction][:, 0] * low_rank + weights.dt_bias[direction]
        )
        one_step = C * (delta * B * pooled)
        result = one_step + weights.D[direction] * local
        total = total + (result if direction == 0 else result.flip(0)) / 2
    normed = functional.layer_norm(total, (2,), weights.norm_weight, weights.norm_bias, 1e-5)
    expected = normed * functional.silu(z)
    torch.testing.assert_close(naive_pooled_mixer(xz, weights, Grid(1, 5, 1))[0], expected)


def test_empty_cells_still_take_a_scan_step() -> None:
    """An empty row between two others lets the state decay by one more step, so the result differs."""
    xz, weights = draw_tokens(1, 4, 6), draw_weights(6)
    together = Kept.from_ids(torch.tensor([[0, 1, 2, 3]]), Grid(2, 2, 1))
    apart = Kept.from_ids(torch.tensor([[0, 1, 4, 5]]), Grid(3, 2, 1))
    near = token_major_pooled_mixer(xz, weights, together)
    far = token_major_pooled_mixer(xz, weights, apart)
    assert not torch.allclose(near, far)
    torch.testing.assert_close(far, naive_pooled_mixer(xz, weights, apart))


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("mixer", [naive_pooled_mixer, token_major_pooled_mixer])
def test_a_grid_first_met_in_inference_can_be_trained_on(mixer: Mixer, is_masked: bool) -> None:
    grid_tables.cache_clear()
    grid = Grid(2, 3, 2, "wrc")
    xz, weights = draw_tokens(2, 6 if is_masked else 12, 6), draw_weights(6)
    with torch.inference_mode():
        seen = mixer(xz, weights, keep(grid, batch=2, ratio=0.5) if is_masked else grid, "mean")
    # Kept tokens are chosen anew in each batch: only the tables of the grid outlive inference.
    layout = keep(grid, batch=2, ratio=0.5) if is_masked else grid
    out, *gradients = outputs_and_gradients(mixer, xz, weights, layout)
    assert torch.equal(out, seen)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_two_runs_give_the_same_bits() -> None:
    single = torch.float32
    weights = draw_weights(24, state=16, dtype=single)
    layout = keep(Grid(7, 7, 5, "wrc"), batch=8, ratio=0.25)
    xz = draw_tokens(8, layout.place.shape[1], 24, dtype=single)
    once = outputs_and_gradients(token_major_pooled_mixer, xz, weights, layout)
    again = outputs_and_gradients(token_major_pooled_mixer, xz, weights, layout)
    assert all(torch.equal(first, second) for first, second in zip(once, again, strict=True))
