"""The selective scan in plain torch: one loop over the pooled sequence for both directions.

States lie as (direction * sample, N, E), so that a step is a few vectorised passes over E whose operands stay in
the cache. The forward pass keeps the state at the start of each chunk only; the backward pass recomputes the
rest, chunk by chunk. No atomics and a fixed order of sums: two runs give the same bits.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from cellvim_kernels.selective_scan.inputs import ScanInputs

CHUNK = 8
"""Steps between kept states: memory falls by this factor, for one more pass over the chunk."""


def token_major_selective_scan(
    inputs: ScanInputs, h0: Float[Tensor, "2 b E N"] | None = None
) -> tuple[Float[Tensor, "2 b P E"], Float[Tensor, "2 b E N"]]:
    """Compute what `naive_selective_scan` defines, with the same arguments and results."""
    u, _, A, _, _ = inputs
    if h0 is None:
        h0 = u.new_zeros(2, u.shape[1], *A.shape[1:])
    y, end = _Scan.apply(*inputs, h0)  # type: ignore[no-untyped-call]
    return y, end


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, h0 = tensors
        rates = A.transpose(1, 2).unsqueeze(1).contiguous()
        driven, y = u * delta, torch.empty_like(u, memory_format=torch.contiguous_format)
        h = h0.transpose(2, 3).clone(memory_format=torch.contiguous_format)
        decay, starts = torch.empty_like(h), []
        for t in range(u.shape[2]):
            if t % CHUNK == 0:
                starts.append(h.clone())
            _decay(delta, rates, t, out=decay)
            h.mul_(decay).addcmul_(_at(B, t).unsqueeze(-1), _at(driven, t).unsqueeze(-2))
            _at(y, t).copy_(_weighted_states(_at(C, t), h))
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        return y, h.transpose(2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        rates = A.transpose(1, 2).unsqueeze(1).contiguous()
        driven, dy = u * delta, gradients[0].contiguous()
        dh = gradients[1].transpose(2, 3).clone(memory_format=torch.contiguous_format)
        ddelta, ddriven = torch.empty_like(driven), torch.empty_like(driven)
        dB, dC = (torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (B, C))
        drates, scratch = torch.zeros_like(dh), torch.empty_like(dh)
        size, length = min(CHUNK, u.shape[2]), u.shape[2]
        h, decay = dh.new_empty(size + 1, *dh.shape), dh.new_empty(size, *dh.shape)
        for chunk in reversed(range(len(starts))):
            first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, length)
            h[0] = starts[chunk]
            for t in range(first, last):
                here = t - first
                _decay(delta, rates, t, out=decay[here])
                torch.mul(h[here], decay[here], out=h[here + 1])
                h[here + 1].addcmul_(_at(B, t).unsqueeze(-1), _at(driven, t).unsqueeze(-2))
            for t in reversed(range(first, last)):
                here = t - first
                dy_t, driven_t = _at(dy, t), _at(driven, t)
                dh.addcmul_(_at(C, t).unsqueeze(-1), dy_t.unsqueeze(-2))
                _at(dC, t).copy_(_sum_over_width(dy_t, h[here + 1]))
                _at(dB, t).copy_(_sum_over_width(driven_t, dh))
                _at(ddriven, t).copy_(_weighted_states(_at(B, t), dh))
                dh.mul_(decay[here])
                torch.mul(h[here], dh, out=scratch)
                drates.addcmul_(scratch, _at(delta, t).unsqueeze(-2))
                _at(ddelta, t).copy_(scratch.mul_(rates).sum(-2))
        ddelta.addcmul_(ddriven, u)
        du = ddriven.mul_(delta)
        return du, ddelta, drates.sum(1).transpose(1, 2), dB, dC, dh.transpose(2, 3)


def _at(tensor: Float[Tensor, "2 b P X"], t: int) -> Float[Tensor, "2 b X"]:
    """Position `t` of the forward direction and `t` from the end of the backward one, without a copy."""
    both, sample, position, inner = tensor.stride()
    last = tensor.shape[2] - 1
    strides = both + (last - 2 * t) * position, sample, inner
    start = tensor.storage_offset() + t * position
    return tensor.as_strided((2, tensor.shape[1], tensor.shape[3]), strides, start)


def _decay(delta: Float[Tensor, "2 b P E"], rates: Tensor, t: int, *, out: Float[Tensor, "2 b N E"]) -> None:
    torch.mul(_at(delta, t).unsqueeze(-2), rates, out=out).exp_()


def _weighted_states(
    weight: Float[Tensor, "2 b N"], states: Float[Tensor, "2 b N E"]
) -> Float[Tensor, "2 b E"]:
    _, batch, state, width = states.shape
    return torch.bmm(weight.reshape(-1, 1, state), states.view(-1, state, width)).view(2, batch, width)


def _sum_over_width(
    values: Float[Tensor, "2 b E"], states: Float[Tensor, "2 b N E"]
) -> Float[Tensor, "2 b N"]:
    # As a row times a matrix: four times faster than the matrix times a column.
    _, batch, state, width = states.shape
    rows = values.reshape(-1, 1, width)
    return torch.bmm(rows, states.view(-1, state, width).transpose(1, 2)).view(2, batch, state)
