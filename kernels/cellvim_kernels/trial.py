"""A small example that a fused path must compute like plain torch before it is trusted on this machine."""

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.add_rms_norm import NORM_EPS
from cellvim_kernels.add_rms_norm.operator import fused_add_rms_norm
from cellvim_kernels.layout import Grid
from cellvim_kernels.pooled_mixer import MixerWeights, token_major_pooled_mixer
from cellvim_kernels.pooled_mixer.operator import fused_pooled_mixer
from cellvim_kernels.stages import FusedBackend

GRID = Grid(2, 3, 2, "wrc")
WIDTH, STATE, RANK, TAPS = 16, 4, 2, 4
TOLERANCE = 1e-3
"""Relative, in the 2-norm: far above float32's rounding, far below any wrong term."""


class TrialError(RuntimeError):
    """A fused path computes something else than plain torch does.

    Args:
        backend: The path.
        error: Relative error of the worst output or gradient.
    """

    def __init__(self, backend: str, error: float) -> None:
        self.backend, self.error = backend, error
        super().__init__(
            f"{backend} kernels differ from plain torch on a small example: relative error {error:.1e}"
        )


def try_out(backend: FusedBackend, device: torch.device) -> None:
    """Compute outputs and all gradients of a small mixer and a norm on both paths.

    In a thread of its own: whatever the caller is in the middle of (autocast, inference, a checkpoint's hooks, a
    default device) is a state of the caller's thread, and must not decide what is found.

    Raises:
        TrialError: They differ.
        Exception: Whatever a missing or failing compiler raises.
    """
    with ThreadPoolExecutor(max_workers=1) as alone:
        alone.submit(_compare, backend, device).result()


def _compare(backend: FusedBackend, device: torch.device) -> None:
    with torch.cuda.device(device if device.type == "cuda" else -1):
        xz, weights, residual, scale = _example(device)
        actual = [
            *_results(fused_pooled_mixer(xz, weights, GRID, backend=backend), xz, *weights),
            *_results(
                torch.cat(fused_add_rms_norm(xz, residual, scale, backend=backend)), xz, residual, scale
            ),
        ]
        stream = xz + residual
        normed = functional.rms_norm(stream, scale.shape, scale, NORM_EPS)
        expected = [
            *_results(token_major_pooled_mixer(xz, weights, GRID), xz, *weights),
            *_results(torch.cat([normed, stream]), xz, residual, scale),
        ]
    worst = max(_relative_error(mine, truth) for mine, truth in zip(actual, expected, strict=True))
    # Not "worst > TOLERANCE", which a NaN would pass.
    if not worst <= TOLERANCE:
        raise TrialError(backend, worst)


def _example(device: torch.device) -> tuple[Tensor, MixerWeights, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator, dtype=torch.float32, device="cpu")
        return values.to(device).requires_grad_()

    weights = MixerWeights(
        conv_weight=draw(2, WIDTH, TAPS),
        conv_bias=draw(2, WIDTH),
        x_proj=draw(2, RANK + 2 * STATE, WIDTH),
        dt_weight=draw(2, WIDTH, RANK),
        dt_bias=draw(2, WIDTH),
        A_log=draw(2, WIDTH, STATE),
        D=draw(2, WIDTH),
        norm_weight=draw(WIDTH),
        norm_bias=draw(WIDTH),
    )
    shape = 2, GRID.length, 2 * WIDTH
    return draw(*shape), weights, draw(*shape), draw(2 * WIDTH)


def _results(out: Tensor, *inputs: Tensor | None) -> list[Tensor]:
    given = [each for each in inputs if each is not None]
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out).cos()
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), given)]


def _relative_error(mine: Tensor, truth: Tensor) -> float:
    return float((mine - truth).norm() / truth.norm())
