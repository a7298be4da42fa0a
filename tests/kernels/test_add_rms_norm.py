"""The residual addition with its RMSNorm: the equation against torch, and Triton against the equation."""

import os
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.add_rms_norm import NORM_EPS, naive_add_rms_norm

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 1e-2}
"""Relative error in the 2-norm against float64; bf16 is rounded once, at 2e-3."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

SHAPES = [(2, 3, 6), (1, 1, 96), (3, 11, 96), (1, 35, 24), (5, 1, 384), (2, 2, 1280)]


@pytest.fixture(scope="module")
def norm() -> ModuleType:
    module: ModuleType = pytest.importorskip("cellvim_kernels.add_rms_norm.triton")
    return module


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    assert actual.isfinite().all()
    return float((actual.double() - expected).norm() / expected.norm())


def test_the_equation_is_torchs_rms_norm_of_the_sum() -> None:
    tokens, residual, weight = draw(2, 5, 12), draw(2, 5, 12, seed=1), draw(12)
    normed, stream = naive_add_rms_norm(tokens, residual, weight)
    torch.testing.assert_close(stream, tokens + residual)
    torch.testing.assert_close(normed, functional.rms_norm(tokens + residual, (12,), weight, NORM_EPS))


def test_gradients_of_the_equation_match_finite_differences() -> None:
    inputs = [tensor.requires_grad_() for tensor in (draw(2, 3, 5), draw(2, 3, 5, seed=1), draw(5))]
    assert torch.autograd.gradcheck(naive_add_rms_norm, inputs)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_triton_matches_the_equation(norm: ModuleType, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tokens, dnormed = (draw(*shape, seed=seed).to(DEVICE, dtype) for seed in (0, 1))
    residual, dstream = (draw(*shape, seed=seed).to(DEVICE, torch.float32) for seed in (2, 3))
    weight = draw(shape[-1]).to(DEVICE, torch.float32)
    wide = [tensor.double().requires_grad_() for tensor in (tokens, residual, weight)]
    normed, stream = naive_add_rms_norm(*wide)
    gradients = torch.autograd.grad(
        (normed, stream), wide[1:], grad_outputs=(dnormed.double(), dstream.double())
    )

    actual, actual_stream, scale = norm.add_rms_norm(tokens, residual, weight)
    dtotal, dweight = norm.add_rms_norm_backward(dnormed, dstream, actual_stream, scale, weight)

    assert actual.dtype == dtype
    assert relative_error(actual, normed.detach()) < TOLERANCES[dtype]
    assert relative_error(actual_stream, stream.detach()) < TOLERANCES[torch.float32]
    assert relative_error(scale, (stream.detach().square().mean(-1) + NORM_EPS).rsqrt()) < 2e-5
    assert dtotal.dtype == dweight.dtype == torch.float32
    assert relative_error(dtotal, gradients[0]) < TOLERANCES[torch.float32]
    assert relative_error(dweight, gradients[1]) < TOLERANCES[torch.float32]


def test_two_runs_give_the_same_bits(norm: ModuleType) -> None:
    tokens, residual, weight = (
        tensor.to(DEVICE, torch.float32) for tensor in (draw(7, 13, 24), draw(7, 13, 24, seed=1), draw(24))
    )
    _, stream, scale = norm.add_rms_norm(tokens, residual, weight)
    runs = [norm.add_rms_norm_backward(tokens, residual, stream, scale, weight) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
