"""The convolution of one token, and how a row of channels is cut and read: what both passes of K1 share."""

# ruff: noqa: RUF005  (Triton knows no starred tuples)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.triton_math import hardware_tanh, sigmoid

SMALLEST_BLOCK = 64
"""Channels of a warp that reads 128 bytes at once in bf16."""


def channel_block(width: int, lane_elements: int) -> int:
    """Channels of a program of one warp, a power of two: one that divides the width, if that leaves enough."""
    block: int = min(32 * lane_elements, triton.next_power_of_2(width))
    while width % block and block > SMALLEST_BLOCK:
        block //= 2
    return block


def has_fast_silu(xz: Float[Tensor, "b L XZ"]) -> bool:
    """Whether the hardware's tanh is there and precise enough."""
    return xz.is_cuda and xz.dtype == torch.bfloat16


@triton.jit
@no_type_check
def program_and_channels(E: tl.constexpr, BE: tl.constexpr) -> tl.tuple:
    """Number of the program without its block of channels, its channels, and which of them exist."""
    blocks: tl.constexpr = (E + BE - 1) // BE
    e = tl.program_id(0) % blocks * BE + tl.arange(0, BE)
    # Where no block is cut, the compiler shall see that no mask is needed.
    return tl.program_id(0) // blocks, e, e < E if E % BE else tl.full((BE,), 1, tl.int1)


@triton.jit
@no_type_check
def halved_taps(
    weight: tl.tensor,
    bias: tl.tensor,
    way: tl.tensor,
    e: tl.tensor,
    is_channel: tl.tensor,
    E: tl.constexpr,
) -> tl.tuple:
    """Four taps and the bias of a direction, halved: SiLU's tanh wants half its argument."""
    row = weight + (way * E + e) * 4
    taps = ()
    for tap in tl.static_range(4):
        taps = taps + (0.5 * tl.load(row + tap, mask=is_channel, other=0.0),)
    return taps + (0.5 * tl.load(bias + way * E + e, mask=is_channel, other=0.0),)


@triton.jit
@no_type_check
def convolve(taps: tl.tuple, x0: tl.tensor, x1: tl.tensor, x2: tl.tensor, x3: tl.tensor) -> tl.tensor:
    """Half the convolution, as fused multiply-adds in a fixed order."""
    return tl.fma(taps[3], x3, tl.fma(taps[2], x2, tl.fma(taps[1], x1, tl.fma(taps[0], x0, taps[4]))))


@triton.jit
@no_type_check
def silu_of_half(half: tl.tensor, FAST: tl.constexpr) -> tl.tuple:
    """SiLU of ``2 * half``, and the tanh of `half` (FAST) or the sigmoid of ``2 * half``.

    Not `triton_math.silu`: with the halving moved into the taps, each token costs two operations less.
    """
    if FAST:
        gate = hardware_tanh(half)
        value = tl.fma(half, gate, half)
    else:
        gate = sigmoid(2.0 * half, FAST)
        value = 2.0 * half * gate
    return value, gate


@triton.jit
@no_type_check
def silu_and_slope(half: tl.tensor, FAST: tl.constexpr) -> tl.tuple:
    """SiLU of ``2 * half``, and twice its derivative, which undoes the halving of the taps in dx."""
    value, gate = silu_of_half(half, FAST)
    slope = tl.fma(value, 1.0 - gate, gate)
    return value, slope + 1.0 if FAST else 2.0 * slope


@triton.jit
@no_type_check
def is_below(position: tl.tensor, end: tl.tensor) -> tl.tensor:
    """Whether ``0 <= position < end``: as unsigned, a negative position is a large one.

    A row's mask is made by this with an `end` for each channel, 0 for those past the width: one comparison for both
    conditions, and the interpreter cannot join a scalar's mask to a row's.
    """
    return position.to(tl.uint32, bitcast=True) < end.to(tl.uint32, bitcast=True)


@triton.jit
@no_type_check
def memory_row(sequence: tl.tensor, position: tl.tensor, L: tl.tensor, IS_RASTER: tl.constexpr) -> tl.tensor:
    """Where in memory a position of the sequence lies."""
    return position if IS_RASTER else tl.load(sequence + position, mask=is_below(position, L), other=0)


@triton.jit
@no_type_check
def read_tokens(
    x: tl.tensor,
    sequence: tl.tensor,
    start: tl.tensor,
    L: tl.tensor,
    ends: tl.tensor,
    COUNT: tl.constexpr,
    E: tl.constexpr,
    IS_RASTER: tl.constexpr,
) -> tl.tuple:
    """Tokens of COUNT positions from `start` on; zeros where a position is not below its channel's end."""
    tokens = ()
    for i in tl.static_range(COUNT):
        row = memory_row(sequence, start + i, L, IS_RASTER)
        # In raster order counted from `start`, so that the offsets are constants.
        token = x + start * (2 * E) + i * (2 * E) if IS_RASTER else x + row * (2 * E)
        tokens = tokens + (tl.load(token, mask=is_below(start + i, ends), other=0.0),)
    return tokens


@triton.jit
@no_type_check
def widened(tokens: tl.tuple) -> tl.tuple:
    """Tokens as float32."""
    wide = ()
    for i in tl.static_range(len(tokens)):
        wide = wide + (tokens[i].to(tl.float32),)
    return wide


@triton.jit
@no_type_check
def read_row(pointer: tl.tensor, position: tl.tensor, ends: tl.tensor, IS_MASKED: tl.constexpr) -> tl.tensor:
    """A row as float32; zeros where there is none."""
    mask = is_below(position, ends) if IS_MASKED else None
    return tl.load(pointer, mask=mask, other=0.0 if IS_MASKED else None).to(tl.float32)


@triton.jit
@no_type_check
def read_cell(
    of_cell: tl.tuple,
    offset: tl.tensor,
    position: tl.tensor,
    ends: tl.tensor,
    IS_MAX: tl.constexpr,
    IS_MASKED: tl.constexpr,
) -> tl.tuple:
    """Gradient of the cell of a position; for the maximum also its value and its ties."""
    read = (read_row(of_cell[0] + offset, position, ends, IS_MASKED),)
    if IS_MAX:
        for i in tl.static_range(1, 3):
            read = read + (read_row(of_cell[i] + offset, position, ends, IS_MASKED),)
    return read
