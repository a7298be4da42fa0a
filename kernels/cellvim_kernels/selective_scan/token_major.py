"""The selective scan in plain torch: one loop over the pooled sequence for both directions.

States lie as (direction, sample, N, E), so that every step is a few vectorised passes over E. The forward pass
keeps the state at the start of each chunk only; the backward pass recomputes the rest, chunk by chunk. No
atomics and a fixed order of sums: two runs give the same bits.
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
    y, end = _Scan.apply(*inputs, h0)
    return y, end


class _Scan(Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, h0 = tensors
        steps = _Steps(u, delta, A, B, C)
        h = h0.transpose(2, 3).contiguous()
        length, starts = u.shape[2], []
        y = torch.empty_like(steps.u)
        decay = torch.empty_like(h)
        for t in range(length):
            if t % CHUNK == 0:
                starts.append(h.clone())
            steps.advance(h, t, decay)
            torch.matmul(steps.C[t].unsqueeze(-2), h, out=y[t].unsqueeze(-2))
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        return _natural(y), h.transpose(2, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        steps = _Steps(u, delta, A, B, C)
        dy = _step_major(gradients[0])
        dh = gradients[1].transpose(2, 3).clone(memory_format=torch.contiguous_format)
        ddelta, ddriven = torch.empty_like(steps.delta), torch.empty_like(steps.delta)
        dB, dC = torch.empty_like(steps.B), torch.empty_like(steps.C)
        dA = torch.zeros_like(steps.A)
        scratch = torch.empty_like(dh)
        for chunk in reversed(range(len(starts))):
            first, last = chunk * CHUNK, min((chunk + 1) * CHUNK, u.shape[2])
            h, decay = steps.replay(starts[chunk], first, last)
            for t in reversed(range(first, last)):
                here = t - first
                torch.mul(steps.C[t].unsqueeze(-1), dy[t].unsqueeze(-2), out=scratch)
                dh.add_(scratch)
                torch.matmul(h[here + 1], dy[t].unsqueeze(-1), out=dC[t].unsqueeze(-1))
                torch.matmul(dh, steps.driven[t].unsqueeze(-1), out=dB[t].unsqueeze(-1))
                torch.matmul(steps.B[t].unsqueeze(-2), dh, out=ddriven[t].unsqueeze(-2))
                dh.mul_(decay[here])
                torch.mul(h[here], dh, out=scratch)
                torch.sum(torch.mul(scratch, steps.A, out=decay[here]), dim=-2, out=ddelta[t])
                scratch.mul_(steps.delta[t].unsqueeze(-2))
                dA.add_(scratch.sum(1, keepdim=True))
        ddelta.addcmul_(ddriven, steps.u)
        du = ddriven.mul_(steps.delta)
        return (
            _natural(du),
            _natural(ddelta),
            dA.squeeze(1).transpose(1, 2),
            _natural(dB),
            _natural(dC),
            dh.transpose(2, 3),
        )


class _Steps:
    """Inputs laid out step by step, the backward direction reversed so that both walk the same way."""

    def __init__(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        self.u, self.delta = _step_major(u), _step_major(delta)
        self.B, self.C = _step_major(B), _step_major(C)
        self.A = A.transpose(1, 2).unsqueeze(1).contiguous()
        self.driven = self.u * self.delta

    def advance(self, h: Tensor, t: int, decay: Tensor) -> None:
        """Move the state `h` by step `t` in place; `decay` receives exp(delta A)."""
        torch.mul(self.delta[t].unsqueeze(-2), self.A, out=decay)
        decay.exp_()
        h.mul_(decay)
        h.addcmul_(self.B[t].unsqueeze(-1), self.driven[t].unsqueeze(-2))

    def replay(self, start: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """States before, between and after the steps of a chunk, and the decay of each step."""
        h = start.new_empty(last - first + 1, *start.shape)
        decay = start.new_empty(last - first, *start.shape)
        h[0] = start
        for t in range(first, last):
            here = t - first
            h[here + 1].copy_(h[here])
            self.advance(h[here + 1], t, decay[here])
        return h, decay


def _step_major(tensor: Float[Tensor, "2 b P X"]) -> Float[Tensor, "P 2 b X"]:
    forward, backward = tensor
    return torch.stack([forward, backward.flip(1)]).permute(2, 0, 1, 3).contiguous()


def _natural(tensor: Float[Tensor, "P 2 b X"]) -> Float[Tensor, "2 b P X"]:
    forward, backward = tensor.unbind(1)
    return torch.stack([forward, backward.flip(0)]).transpose(1, 2)
