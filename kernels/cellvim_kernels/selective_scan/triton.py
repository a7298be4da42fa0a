"""The selective scan on a GPU, both directions in one launch, states in registers.

A thread owns whole channels: all N states of one channel lie in its registers, so the forward pass exchanges nothing
between threads.
"""

# ruff: noqa: RUF005  (Triton knows no starred tuples)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.selective_scan.triton_backward import (
    CHUNK,
    LOG2E,
    selective_scan_backward,
    softplus,
    unaligned,
)

__all__ = ["selective_scan", "selective_scan_backward"]

BLOCK = 128
WARPS = 2
"""Two channels per thread: half as many loads of B and C per channel as with one."""


def selective_scan(
    u: Float[Tensor, "2 b P E"],
    step: Float[Tensor, "2 b P E"],
    dt_bias: Float[Tensor, "2 E"],
    A: Float[Tensor, "2 E N"],
    B: Float[Tensor, "2 b P N"],
    C: Float[Tensor, "2 b P N"],
    keeps_states: bool,  # noqa: FBT001  (same signature as the C++ path)
) -> tuple[Float[Tensor, "2 b P E"], Tensor]:
    """Compute what `naive_selective_scan` defines, with ``delta = softplus(step + dt_bias)``, in float32.

    Args:
        u: Input sequence of both directions, contiguous.
        step: Step size before bias and softplus, contiguous.
        dt_bias: Added to `step`.
        A: Decay rates, all negative, contiguous.
        B: Input projection; a view whose last dimension is contiguous. N is a power of two.
        C: Output projection, likewise.
        keeps_states: Return what `selective_scan_backward` needs.

    Returns:
        Output sequences in natural order, and the states before every `CHUNK`-th step in the order of the scan,
        (2, b, chunks, N, E); of shape (0,) unless kept.
    """
    _, batch, cells, width = u.shape
    state = A.shape[-1]
    y = torch.empty_like(u)
    starts = u.new_empty((2, batch, triton.cdiv(cells, CHUNK), state, width) if keeps_states else (0,))
    scan_kernel[(batch, 2, triton.cdiv(width, BLOCK))](
        u,
        step,
        dt_bias,
        A.transpose(1, 2).contiguous(),
        B,
        C,
        y,
        starts,
        cells,
        *B.stride()[:3],
        *C.stride()[:3],
        E=width,
        N=state,
        BLOCK=BLOCK,
        CHUNK=CHUNK,
        KEEPS=keeps_states,
        num_warps=WARPS,
        enable_fp_fusion=False,
    )
    return y, starts


@triton.jit
@no_type_check
def scan_kernel(
    u: tl.tensor,
    step: tl.tensor,
    dt_bias: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    y: tl.tensor,
    starts: tl.tensor,
    cells: tl.tensor,
    B_direction: tl.tensor,
    B_sample: tl.tensor,
    B_cell: tl.tensor,
    C_direction: tl.tensor,
    C_sample: tl.tensor,
    C_cell: tl.tensor,
    E: tl.constexpr,
    N: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
    KEEPS: tl.constexpr,
) -> None:
    """Scan one sample, direction and block of channels."""
    sample = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1).to(tl.int64)
    row = direction * tl.num_programs(0) + sample
    e = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    n = tl.arange(0, N)
    tile = n[:, None] * E + e[None, :]
    inside = e < E
    chunks = tl.cdiv(cells, CHUNK)
    first = (direction * (cells - 1)).to(tl.int32)
    way = (1 - 2 * direction).to(tl.int32)
    u = unaligned(u + row * cells * E, cells)
    step = unaligned(step + row * cells * E, cells)
    y = unaligned(y + row * cells * E, cells)
    B += direction * B_direction + sample * B_sample
    C += direction * C_direction + sample * C_sample
    starts = unaligned(starts + row * chunks * (N * E), cells)
    rate = tl.load(unaligned(A + direction * (N * E), cells) + tile, mask=inside[None, :], other=0.0) * LOG2E
    bias = tl.load(unaligned(dt_bias + direction * E, cells) + e, mask=inside, other=0.0)
    h = tl.zeros((N, BLOCK), tl.float32)
    inputs = load_chunk(u, step, 0, cells, e, E, CHUNK)
    for chunk in range(chunks):
        if KEEPS:
            tl.store(starts + chunk * (N * E) + tile, h, mask=inside[None, :])
        # The next chunk's inputs travel while this one is computed.
        ahead = load_chunk(u, step, chunk + 1, cells, e, E, CHUNK)
        for k in tl.static_range(CHUNK):
            t = chunk * CHUNK + k
            place = first + way * tl.minimum(t, cells - 1)
            is_step = e < tl.where(t < cells, E, 0)
            B_t = tl.load(B + place * B_cell + n)
            C_t = tl.load(C + place * C_cell + n)
            delta = tl.where(is_step, softplus(inputs[2 * k + 1] + bias)[0], 0.0)
            driven = delta * inputs[2 * k]
            h = tl.fma(h, tl.exp2(rate * delta[None, :]), B_t[:, None] * driven[None, :])
            tl.store(y + place * E + e, tl.sum(h * C_t[:, None], axis=0), mask=is_step)
        inputs = ahead


@triton.jit
@no_type_check
def load_chunk(
    u: tl.tensor,
    step: tl.tensor,
    chunk: tl.tensor,
    cells: tl.tensor,
    e: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
) -> tl.tuple:
    """Load u and step of each step of a chunk; steps past the end repeat the last one."""
    direction = tl.program_id(1)
    inputs = ()
    for k in tl.static_range(CHUNK):
        t = tl.minimum(chunk * CHUNK + k, cells - 1)
        place = direction * (cells - 1) + (1 - 2 * direction) * t
        inputs = inputs + (tl.load(u + place * E + e, mask=e < E, other=0.0),)
        inputs = inputs + (tl.load(step + place * E + e, mask=e < E, other=0.0),)
    return inputs
