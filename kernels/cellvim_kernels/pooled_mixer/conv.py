"""Both depthwise convolutions over the sequence, causal and anticausal, and their SiLU."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional


def both_convs_silu(
    x: Float[Tensor, "b L E"], weight: Float[Tensor, "2 E K"], bias: Float[Tensor, "2 E"]
) -> tuple[Float[Tensor, "b L E"], Float[Tensor, "b L E"]]:
    """Convolve looking back (direction 0) and looking ahead (direction 1), each followed by SiLU.

    Computed and returned in float32 at least: rounded to bf16, the summands of a gradient would lose more than
    a hundredth of it. Only `x`, as it came, is kept for the backward pass: convolving again is cheaper than
    reading the result back.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    arguments = x.contiguous(), weight.to(dtype), bias.to(dtype)
    looking_back, looking_ahead = _BothConvsSilu.apply(*arguments)  # type: ignore[no-untyped-call]
    return looking_back, looking_ahead


class _BothConvsSilu(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        x, weight, bias = tensors
        ctx.save_for_backward(x, weight, bias)
        wide = x.to(weight.dtype)
        return (
            functional.silu(_looking_back(wide, weight[0], bias[0])),
            functional.silu(_looking_ahead(wide, weight[1], bias[1])),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        narrow, weight, bias = ctx.saved_tensors
        x = narrow.to(weight.dtype)
        before_silu = _looking_back(x, weight[0], bias[0]), _looking_ahead(x, weight[1], bias[1])
        back, ahead = (
            torch.ops.aten.silu_backward(gradient.contiguous(), value)
            for gradient, value in zip(gradients, before_silu, strict=True)
        )
        # The adjoint of looking back is looking ahead, with the same taps.
        dx = _looking_ahead(back, weight[0]) + _looking_back(ahead, weight[1])
        dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
        _tap_gradients(back, x, towards=-1, out=dweight[0])
        _tap_gradients(ahead, x, towards=1, out=dweight[1])
        dbias[0], dbias[1] = _column_sums(back), _column_sums(ahead)
        return dx.to(narrow.dtype), dweight, dbias


def _looking_back(
    x: Float[Tensor, "b L E"], taps: Float[Tensor, "E K"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "b L E"]:
    return _padded_conv(x, taps, bias)[:, : x.shape[1]]


def _looking_ahead(
    x: Float[Tensor, "b L E"], taps: Float[Tensor, "E K"], bias: Float[Tensor, " E"] | None = None
) -> Float[Tensor, "b L E"]:
    return _padded_conv(x, taps.flip(1), bias)[:, taps.shape[1] - 1 :]


def _padded_conv(
    x: Float[Tensor, "b L E"], taps: Float[Tensor, "E K"], bias: Float[Tensor, " E"] | None
) -> Float[Tensor, "b L+K-1 E"]:
    # (b, L, E) read as an image of height 1 is already "channels last", which oneDNN convolves in place.
    image = x.unsqueeze(1).permute(0, 3, 1, 2)
    width, size = taps.shape
    kernel = taps.reshape(width, 1, 1, size)
    result = functional.conv2d(image, kernel, bias, padding=(0, size - 1), groups=width)
    return result.permute(0, 2, 3, 1).squeeze(1)


def _tap_gradients(
    gradient: Float[Tensor, "b L E"], x: Float[Tensor, "b L E"], *, towards: int, out: Float[Tensor, "E K"]
) -> None:
    length, size = x.shape[1], out.shape[1]
    for tap in range(size):
        distance = size - 1 - tap
        if distance >= length:
            out[:, tap] = 0
            continue
        here = slice(distance, None) if towards < 0 else slice(None, length - distance)
        there = slice(None, length - distance) if towards < 0 else slice(distance, None)
        out[:, tap] = _column_sums(gradient[:, here] * x[:, there])


def _column_sums(tokens: Float[Tensor, "b L E"]) -> Float[Tensor, " E"]:
    # A product with ones is several times faster than sum() over the leading axes, and as deterministic.
    rows = tokens.flatten(0, 1)
    return rows.new_ones(len(rows)) @ rows
