"""The Triton scan against its equation in float64: outputs, kept states and every gradient."""

import os
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.selective_scan import ScanInputs, naive_selective_scan
from tests.kernels.mixer_cases import FLOAT32_TOLERANCE

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

scan = pytest.importorskip("cellvim_kernels.selective_scan.triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Arguments(NamedTuple):
    u: Tensor
    step: Tensor
    dt_bias: Tensor
    A: Tensor
    B: Tensor
    C: Tensor


def draw_arguments(batch: int, cells: int, width: int, state: int) -> Arguments:
    """Float32, B and C as views of one wider projection; steps reach from negligible to large."""
    generator = torch.Generator().manual_seed(cells * width + state)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE)

    projected = draw(2, batch, cells, 3 + 2 * state)
    _, B, C = projected.split([3, state, state], dim=-1)
    return Arguments(
        u=draw(2, batch, cells, width),
        step=2 * draw(2, batch, cells, width),
        dt_bias=draw(2, width) - 2,
        A=-draw(2, width, state).exp(),
        B=B,
        C=C,
    )


def draw_dy(directions: int, batch: int, cells: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(directions)
    return torch.randn(directions, batch, cells, width, generator=generator).to(DEVICE)


def expected_results(arguments: Arguments, dy: Tensor) -> list[Tensor]:
    """Y, du, dstep, dA, dB and dC of the equation in float64."""
    wide = Arguments(*(tensor.double().requires_grad_() for tensor in arguments))
    delta = functional.softplus(wide.step + wide.dt_bias[:, None, None, :])
    y, _ = naive_selective_scan(ScanInputs(wide.u, delta, wide.A, wide.B, wide.C))
    wanted = [wide.u, wide.step, wide.A, wide.B, wide.C]
    return [y.detach(), *torch.autograd.grad(y, wanted, dy.double().expand_as(y))]


def expected_starts(arguments: Arguments) -> Tensor:
    """States before every CHUNK-th step, from the equation run on ever longer parts."""
    u, step, dt_bias, A, B, C = (tensor.double() for tensor in arguments)
    delta = functional.softplus(step + dt_bias[:, None, None, :])
    cells = u.shape[2]
    starts = []
    for done in range(0, cells, scan.CHUNK):
        ends = []
        for direction, part in enumerate((slice(0, done), slice(cells - done, cells))):
            pieces = [tensor[:, :, part] for tensor in (u, delta, B, C)]
            ends.append(
                naive_selective_scan(ScanInputs(pieces[0], pieces[1], A, pieces[2], pieces[3]))[1][direction]
                if done
                else u.new_zeros(u.shape[1], *A.shape[1:])
            )
        starts.append(torch.stack(ends))
    return torch.stack(starts, dim=2).transpose(3, 4)


def actual_results(arguments: Arguments, dy: Tensor) -> list[Tensor]:
    y, starts = scan.selective_scan(*arguments, True)
    return [y, *scan.selective_scan_backward(dy, *arguments, starts)]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for number, (mine, truth) in enumerate(zip(actual, expected, strict=True)):
        assert mine.shape == truth.shape
        assert mine.dtype == torch.float32
        assert mine.isfinite().all()
        error = (mine.double() - truth).norm() / truth.norm().clamp(min=1e-12)
        assert error < FLOAT32_TOLERANCE, f"tensor {number}: relative error {error:.1e}"


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("batch", "cells", "width", "state", "directions"),
    [
        (3, 1, 24, 2, 1),
        (3, 2, 33, 16, 2),
        (2, 7, 5, 4, 1),
        (2, 8, 24, 1, 2),
        (2, 9, 33, 4, 1),
        (2, 9, 33, 4, 2),
        (1, 63, 5, 2, 1),
        (1, 112, 24, 16, 2),
    ],
)
def test_outputs_and_all_gradients_match_the_equation(
    batch: int, cells: int, width: int, state: int, directions: int
) -> None:
    arguments = draw_arguments(batch, cells, width, state)
    dy = draw_dy(directions, batch, cells, width)
    assert_close(actual_results(arguments, dy), expected_results(arguments, dy))


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="minutes in the interpreter: needs a GPU")
def test_an_unpooled_sequence_takes_the_same_code() -> None:
    arguments, dy = draw_arguments(1, 6272, 5, 2), draw_dy(1, 1, 6272, 5)
    assert_close(actual_results(arguments, dy), expected_results(arguments, dy))


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("cells", [1, 9])
def test_kept_states_are_those_before_each_chunk(cells: int) -> None:
    arguments = draw_arguments(2, cells, 33, 4)
    _, starts = scan.selective_scan(*arguments, True)
    assert starts.shape == (2, 2, -(-cells // scan.CHUNK), 4, 33)
    assert_close([starts], [expected_starts(arguments)])


def test_nothing_is_kept_for_inference() -> None:
    y, starts = scan.selective_scan(*draw_arguments(2, 9, 5, 2), False)
    assert starts.shape == (0,)
    assert y.isfinite().all()


def test_two_runs_give_the_same_bits() -> None:
    arguments, dy = draw_arguments(1, 6, 33, 4), draw_dy(2, 1, 6, 33)
    first, second = actual_results(arguments, dy), actual_results(arguments, dy)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("step", [-80.0, -8.0, 0.0, 8.0, 90.0])
def test_softplus_keeps_its_relative_accuracy_everywhere(step: float) -> None:
    """One step from a state of zero: ``y = softplus(step) B C u`` shows the softplus itself."""
    arguments = draw_arguments(1, 1, 5, 1)
    at_step = arguments._replace(
        step=torch.full_like(arguments.step, step), dt_bias=torch.zeros_like(arguments.dt_bias)
    )
    dy = draw_dy(1, 1, 1, 5)
    assert_close(actual_results(at_step, dy)[:3], expected_results(at_step, dy)[:3])
