"""Numerical contract of the bidirectional scan: outputs, gradients, and the laws of the recurrence."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cellvim_kernels.selective_scan import ScanInputs, naive_selective_scan, token_major_selective_scan

Scan = Callable[[ScanInputs, Tensor | None], tuple[Tensor, Tensor]]

SCANS = [naive_selective_scan, token_major_selective_scan]
FLOAT64_TOLERANCE = 1e-10
"""Both paths in float64 differ by rounding only."""
FLOAT32_TOLERANCE = 2e-5
"""Relative error in the 2-norm of float32 against float64."""


def scan_inputs(
    length: int,
    *,
    batch: int = 2,
    width: int = 3,
    state: int = 4,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, ...]:
    """Inputs of a scan and its initial state, every one a leaf."""
    generator = torch.Generator().manual_seed(length)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u, delta = draw(2, batch, length, width), draw(2, batch, length, width).exp() * 0.3
    A = -draw(2, width, state).exp()
    B, C = draw(2, batch, length, state), draw(2, batch, length, state)
    h0 = draw(2, batch, width, state)
    return tuple(x.to(dtype).requires_grad_() for x in (u, delta, A, B, C, h0))


def outputs_and_gradients(scan: Scan, *tensors: Tensor) -> list[Tensor]:
    *inputs, h0 = tensors
    y, end = scan(ScanInputs(*inputs), h0)
    total = (y * torch.cos(torch.arange(y.numel()).view_as(y))).sum() + (end * end.detach().sin()).sum()
    return [y, end, *torch.autograd.grad(total, tensors)]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


def test_naive_is_the_recurrence_on_plain_numbers() -> None:
    u, delta, A, B, C, h0 = (tensor.tolist() for tensor in scan_inputs(5, batch=1, width=1, state=2))
    y, end = naive_selective_scan(
        ScanInputs(*scan_inputs(5, batch=1, width=1, state=2)[:5]), torch.tensor(h0)
    )
    for direction, steps in enumerate(([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])):
        h = list(h0[direction][0][0])
        for t in steps:
            step, value = delta[direction][0][t][0], u[direction][0][t][0]
            for n in (0, 1):
                decay = math.exp(step * A[direction][0][n])
                h[n] = decay * h[n] + step * B[direction][0][t][n] * value
            read = h[0] * C[direction][0][t][0] + h[1] * C[direction][0][t][1]
            assert y[direction, 0, t, 0].item() == pytest.approx(read, rel=1e-6)
        assert end[direction, 0, 0].tolist() == pytest.approx(h, rel=1e-6)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("length", [1, 2, 9])
def test_gradients_match_finite_differences(scan: Scan, length: int) -> None:
    inputs = scan_inputs(length, width=2, state=2)
    assert torch.autograd.gradcheck(lambda *tensors: scan(ScanInputs(*tensors[:5]), tensors[5]), inputs)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 63])
@pytest.mark.parametrize("width", [1, 5])
def test_token_major_equals_naive(length: int, width: int) -> None:
    inputs = scan_inputs(length, batch=3, width=width)
    expected = outputs_and_gradients(naive_selective_scan, *inputs)
    for actual, truth in zip(
        outputs_and_gradients(token_major_selective_scan, *inputs), expected, strict=True
    ):
        assert relative_error(actual, truth) < FLOAT64_TOLERANCE


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("length", [7, 112])
def test_float32_stays_close_to_float64(length: int) -> None:
    expected = outputs_and_gradients(naive_selective_scan, *scan_inputs(length, width=6, state=16))
    inputs = scan_inputs(length, width=6, state=16, dtype=torch.float32)
    for actual, truth in zip(
        outputs_and_gradients(token_major_selective_scan, *inputs), expected, strict=True
    ):
        assert actual.dtype == torch.float32
        assert relative_error(actual, truth) < FLOAT32_TOLERANCE


def test_inputs_need_not_be_contiguous() -> None:
    inputs = scan_inputs(9)
    strided = [tensor.detach().mT.contiguous().mT.requires_grad_() for tensor in inputs]
    assert not any(tensor.is_contiguous() for tensor in strided)
    expected = outputs_and_gradients(naive_selective_scan, *inputs)
    for actual, truth in zip(
        outputs_and_gradients(token_major_selective_scan, *strided), expected, strict=True
    ):
        assert relative_error(actual, truth) < FLOAT64_TOLERANCE


@pytest.mark.parametrize("scan", SCANS)
@given(length=st.integers(2, 20), data=st.data())
def test_scanning_in_two_parts_equals_scanning_once(scan: Scan, length: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, length - 1))
    u, delta, A, B, C, h0 = (tensor.detach() for tensor in scan_inputs(length))

    def part(piece: slice, start: Tensor) -> tuple[Tensor, Tensor]:
        sliced = ScanInputs(u[:, :, piece], delta[:, :, piece], A, B[:, :, piece], C[:, :, piece])
        return scan(sliced, start)

    whole, end = scan(ScanInputs(u, delta, A, B, C), h0)
    left, right = slice(None, cut), slice(cut, None)
    first_left, middle = part(left, h0)
    then_right, forward_end = part(right, middle)
    first_right, middle = part(right, h0)
    then_left, backward_end = part(left, middle)

    torch.testing.assert_close(torch.cat([first_left[0], then_right[0]], 1), whole[0])
    torch.testing.assert_close(torch.cat([then_left[1], first_right[1]], 1), whole[1])
    torch.testing.assert_close(torch.stack([forward_end[0], backward_end[1]]), end)


def test_the_backward_direction_is_the_forward_one_read_from_the_end() -> None:
    u, delta, A, B, C, _ = (tensor.detach() for tensor in scan_inputs(7))
    y, _ = token_major_selective_scan(ScanInputs(u, delta, A, B, C))
    turned = [tensor.flip(0, 2) for tensor in (u, delta, B, C)]
    swapped, _ = token_major_selective_scan(ScanInputs(turned[0], turned[1], A.flip(0), turned[2], turned[3]))
    torch.testing.assert_close(swapped.flip(0, 2), y)


def test_two_runs_give_the_same_bits() -> None:
    inputs = scan_inputs(20, batch=4, width=33, state=16, dtype=torch.float32)
    once = outputs_and_gradients(token_major_selective_scan, *inputs)
    for first, second in zip(once, outputs_and_gradients(token_major_selective_scan, *inputs), strict=True):
        assert torch.equal(first, second)
