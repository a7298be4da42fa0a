"""What both passes of the fused expansion share: how a row is cut into tiles, and the mixed value before the norm.

A program walks along the sequence of one sample, STEP positions at a time. Its threads divide the channels among
them, so that each keeps the same few channels at all positions: a row of x is read and widened once for the seven
positions that it reaches, and weights once per STEP positions. A row is CHUNKS tiles of a power of two, because
widths like 768 are not one.
"""

# Triton's tuples cannot be unpacked into one another.
# ruff: noqa: RUF005

from dataclasses import dataclass
from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.expand_gate.triton_rows import load_row, load_weight
from cellvim_kernels.triton_math import silu

STEP = 4
"""Positions that a program holds at a time."""

MANY_PROGRAMS = 2048
"""Programs beyond which each walks further instead: several waves on 132 multiprocessors."""


@dataclass(frozen=True)
class Tiling:
    """How a row of E channels is spread over the threads of a program."""

    warps: int
    chunk: int
    chunks: int

    @classmethod
    def of(cls, width: int, channels_per_warp: int, most_warps: int = 16) -> "Tiling":
        """Cut a row into chunks of at most two channels per thread.

        Args:
            width: E.
            channels_per_warp: Channels of a row that a warp takes, in all chunks together.
            most_warps: Beyond which each takes more: 16 warps leave a thread 128 registers.
        """
        warps = min(most_warps, triton.next_power_of_2(triton.cdiv(width, channels_per_warp)))
        chunk = min(64 * warps, triton.next_power_of_2(triton.cdiv(width, 3)))
        return cls(warps, chunk, triton.cdiv(width, chunk))


def positions_per_program(batch: int, length: int, longest: int) -> int:
    """How far a program walks: a multiple of STEP that depends on shapes alone, so that sums have a fixed order."""
    steps: int = triton.cdiv(batch * length, MANY_PROGRAMS * STEP)
    return STEP * min(steps, -(-length // STEP), longest // STEP)


def taps_first(conv_weight: Float[Tensor, "2 E 4"]) -> Float[Tensor, "2 4 E"]:
    """Lay the taps of neighbouring channels beside each other, as threads read them."""
    return conv_weight.transpose(1, 2).contiguous()


@triton.jit
@no_type_check
def mix_rows(
    x: tl.tensor,
    y_forward: tl.tensor,
    y_backward: tl.tensor,
    taps: tl.tensor,
    conv_bias: tl.tensor,
    D: tl.tensor,
    sequence: tl.tensor,
    cell: tl.tensor,
    direction_stride: tl.tensor,
    start: tl.tensor,
    length: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEP: tl.constexpr,
    SHARES_CELLS: tl.constexpr,
    FAST: tl.constexpr,
) -> tl.tuple:
    """Twice the mixed value (see `mix_chunk`) of STEP positions from `start`, with what `neighbourhood` gives."""
    rows, exist = neighbourhood(sequence, start, length, STEP)
    cells_forward = cells_of(cell, start, exist, STEP)
    cells_backward = cells_forward if SHARES_CELLS else cells_of(cell + direction_stride, start, exist, STEP)
    mixed = ()
    for chunk in tl.static_range(CHUNKS):
        channel = chunk * CHUNK + tl.arange(0, CHUNK)
        mixed = mixed + (
            mix_chunk(
                x, y_forward, y_backward, taps, conv_bias, D, channel, rows, exist, cells_forward, cells_backward,
                E, CHUNK, STEP, FAST,
            ),
        )  # fmt: skip
    return mixed, rows, exist


@triton.jit
@no_type_check
def neighbourhood(
    sequence: tl.tensor,
    start: tl.tensor,
    length: tl.tensor,
    STEP: tl.constexpr,
) -> tl.tensor:
    """Memory rows of the positions from ``start - 3`` to ``start + STEP + 2``, and which of them exist."""
    rows = ()
    exist = ()
    for offset in tl.static_range(STEP + 6):
        position = start + (offset - 3)
        exists = (position >= 0) & (position < length)
        exist = exist + (exists,)
        rows = rows + (tl.load(sequence + position, mask=exists, other=0),)
    return rows, exist


@triton.jit
@no_type_check
def cells_of(cell: tl.tensor, start: tl.tensor, exist: tl.tensor, STEP: tl.constexpr) -> tl.tensor:
    """Cells of STEP positions."""
    cells = ()
    for index in tl.static_range(STEP):
        cells = cells + (tl.load(cell + start + index, mask=exist[index + 3], other=0),)
    return cells


@triton.jit
@no_type_check
def mix_chunk(
    x: tl.tensor,
    y_forward: tl.tensor,
    y_backward: tl.tensor,
    taps: tl.tensor,
    conv_bias: tl.tensor,
    D: tl.tensor,
    channel: tl.tensor,
    rows: tl.tensor,
    exist: tl.tensor,
    cells_forward: tl.tensor,
    cells_backward: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    STEP: tl.constexpr,
    FAST: tl.constexpr,
) -> tl.tensor:
    """STEP tiles ``y_0[cell] + y_1[cell] + D_0 v_0 + D_1 v_1``; zero in channels that are only padding.

    The mixed value is half of it: a LayerNorm does not see the factor if its epsilon is four times as large.

    Args:
        x: Sample's first row; y_forward and y_backward: its first cell.
        taps: (2, 4, E).
        channel: Channels of this chunk.
        rows: See `neighbourhood`; exist: the same.
        cells_forward: See `cells_of`; cells_backward: the same.
    """
    f0 = load_weight(taps, channel, E, CHUNK)
    f1 = load_weight(taps + E, channel, E, CHUNK)
    f2 = load_weight(taps + 2 * E, channel, E, CHUNK)
    f3 = load_weight(taps + 3 * E, channel, E, CHUNK)
    b0 = load_weight(taps + 4 * E, channel, E, CHUNK)
    b1 = load_weight(taps + 5 * E, channel, E, CHUNK)
    b2 = load_weight(taps + 6 * E, channel, E, CHUNK)
    b3 = load_weight(taps + 7 * E, channel, E, CHUNK)
    bias_f = load_weight(conv_bias, channel, E, CHUNK)
    bias_b = load_weight(conv_bias + E, channel, E, CHUNK)
    D_f = load_weight(D, channel, E, CHUNK)
    D_b = load_weight(D + E, channel, E, CHUNK)
    window = ()
    for offset in tl.static_range(6):
        window = window + (load_row(x + rows[offset] * (2 * E), channel, exist[offset], E, CHUNK),)
    mixed = ()
    for index in tl.static_range(STEP):
        row = load_row(x + rows[index + 6] * (2 * E), channel, exist[index + 6], E, CHUNK)
        window = window + (row,)
        looking_back = tl.fma(f3, window[index + 3], bias_f)
        looking_back = tl.fma(f2, window[index + 2], looking_back)
        looking_back = tl.fma(f1, window[index + 1], looking_back)
        looking_back = tl.fma(f0, window[index], looking_back)
        looking_ahead = tl.fma(b3, window[index + 3], bias_b)
        looking_ahead = tl.fma(b2, window[index + 4], looking_ahead)
        looking_ahead = tl.fma(b1, window[index + 5], looking_ahead)
        looking_ahead = tl.fma(b0, window[index + 6], looking_ahead)
        tile = load_row(y_forward + cells_forward[index] * E, channel, exist[index + 3], E, CHUNK)
        tile += load_row(y_backward + cells_backward[index] * E, channel, exist[index + 3], E, CHUNK)
        tile = tl.fma(D_f, silu(looking_back, FAST), tile)
        mixed = mixed + (tl.fma(D_b, silu(looking_ahead, FAST), tile),)
    return mixed


@triton.jit
@no_type_check
def standardise(
    tiles: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEP: tl.constexpr,
    EPS: tl.constexpr,
) -> tl.tensor:
    """Bring rows to mean 0 and variance 1 (padding stays zero); also the factor by which each was multiplied."""
    totals = sum_rows(tiles, CHUNKS, STEP)
    centred = ()
    for chunk in tl.static_range(CHUNKS):
        channel = chunk * CHUNK + tl.arange(0, CHUNK)
        of_chunk = ()
        for index in tl.static_range(STEP):
            tile = tiles[chunk][index] - totals[index] * (1.0 / E)
            if E % CHUNK != 0:
                tile = tl.where(channel < E, tile, 0.0)
            of_chunk = of_chunk + (tile,)
        centred = centred + (of_chunk,)
    squares = sum_products(centred, centred, CHUNKS, STEP)
    factors = ()
    for index in tl.static_range(STEP):
        factors = factors + (tl.rsqrt(squares[index] * (1.0 / E) + EPS),)
    standard = ()
    for chunk in tl.static_range(CHUNKS):
        of_chunk = ()
        for index in tl.static_range(STEP):
            of_chunk = of_chunk + (centred[chunk][index] * factors[index],)
        standard = standard + (of_chunk,)
    return standard, factors


@triton.jit
@no_type_check
def sum_rows(tiles: tl.tensor, CHUNKS: tl.constexpr, STEP: tl.constexpr) -> tl.tensor:
    """Sum over the channels of STEP rows, given as CHUNKS tuples of tiles."""
    partial = ()
    for index in tl.static_range(STEP):
        total = tiles[0][index]
        for chunk in tl.static_range(1, CHUNKS):
            total += tiles[chunk][index]
        partial = partial + (total,)
    # All rows in one reduction, so that warps wait for each other once.
    return tl.reduce(partial, 0, _add_four)


@triton.jit
@no_type_check
def sum_products(left: tl.tensor, right: tl.tensor, CHUNKS: tl.constexpr, STEP: tl.constexpr) -> tl.tensor:
    """Sum of the products over the channels of STEP rows."""
    partial = ()
    for index in tl.static_range(STEP):
        total = left[0][index] * right[0][index]
        for chunk in tl.static_range(1, CHUNKS):
            total = tl.fma(left[chunk][index], right[chunk][index], total)
        partial = partial + (total,)
    return tl.reduce(partial, 0, _add_four)


@triton.jit
@no_type_check
def _add_four(a0, a1, a2, a3, b0, b1, b2, b3):  # noqa: ANN001, ANN202
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3
