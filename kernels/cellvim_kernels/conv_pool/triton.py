"""Both convolutions, SiLU and pooling in one pass over x: nothing as long as the sequence is written.

On a full grid the cells of a row alternate along the sequence, so a program walks a row with a window of tokens and
one sum per cell in registers: each token is read and widened once for its seven uses. Kept tokens follow no such
pattern: there a program gathers the members of one cell, and its neighbours' reads meet in the cache.
"""

# ruff: noqa: RUF005  (Triton knows no starred tuples)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.conv_pool.triton_backward import conv_pool_backward
from cellvim_kernels.conv_pool.triton_conv import (
    channel_block,
    convolve,
    halved_taps,
    has_fast_silu,
    program_and_channels,
    read_tokens,
    silu_of_half,
    widened,
)
from cellvim_kernels.layout import Pool
from cellvim_kernels.tables import Tables

__all__ = ["conv_pool", "conv_pool_backward"]

LANE_ELEMENTS = 2
"""Channels of a thread where cells alternate. Compiled for sm_90, four of them cost 17.5 instead of 19 instructions
per token and channel, but 246 registers instead of 123: too few warps would be left to hide the reads."""
GATHER_LANE_ELEMENTS = 8
"""Channels of a thread that gathers members. Their addresses are most of its work: with four channels it takes 48
instructions per token and channel, with eight 37."""
MOST_CELLS = 8
"""Cells that a program sums side by side."""
MOST_TOKENS = 10
"""Tokens that a program reads at once: more need registers, fewer leave the memory idle."""


def conv_pool(
    xz: Float[Tensor, "b L XZ"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    tables: Tables,
    pool: Pool,
) -> tuple[Float[Tensor, "2 b P E"], Float[Tensor, "..."]]:
    """Convolve x along the sequence, apply SiLU, and pool the tokens of each cell; an empty cell is zero.

    All tensors are contiguous.

    Args:
        xz: Output of in_proj in memory order, x in the first half.
        conv_weight: Depthwise taps of both directions; the last one meets the token itself.
        conv_bias: Bias of the convolution.
        tables: Order of the sequence and cell of each token.
        pool: How the tokens of a cell become one.

    Returns:
        Pooled cells, and, for ``max``, how many members of each cell share the maximum (else nothing).
    """
    batch, length, double_width = xz.shape
    width, cells = double_width // 2, tables.cells
    pooled = torch.empty(2, batch, cells, width, dtype=torch.float32, device=xz.device)
    ties = torch.empty_like(pooled) if pool == "max" else pooled.new_empty(0)
    block = channel_block(width, LANE_ELEMENTS if tables.row_tokens else GATHER_LANE_ELEMENTS)
    blocks = triton.cdiv(width, block)
    settings = {
        "E": width, "BE": block, "IS_RASTER": tables.is_raster, "IS_MAX": pool == "max",
        "FAST": has_fast_silu(xz), "num_warps": 1, "enable_fp_fusion": False,
    }  # fmt: skip
    if tables.row_tokens:
        # Where each cell is one token, any number of cells may be called a row.
        interleave = cells if tables.row_tokens == 1 else tables.interleave
        side_by_side, steps = walk_shape(interleave, tables.row_tokens)
        rows = cells // interleave * triton.cdiv(interleave, side_by_side)
        pool_rows_kernel[(batch * rows * blocks,)](
            xz, conv_weight, conv_bias, tables.sequence, tables.share, pooled, ties,
            batch, length, cells, tables.row_tokens, interleave,
            CELLS=side_by_side, STEPS=steps, IS_ROW=side_by_side == interleave, **settings,
        )  # fmt: skip
    else:
        directions = len(tables.cell)
        pool_members_kernel[(batch * cells * directions * blocks,)](
            xz, conv_weight, conv_bias, tables.sequence, tables.members, tables.first, tables.share, pooled, ties,
            batch, length, cells, DIRECTIONS=directions, **settings,
        )  # fmt: skip
    return pooled, ties


def walk_shape(interleave: int, row_tokens: int) -> tuple[int, int]:
    """Cells of a program, and how many members of each it reads at once."""
    groups = triton.cdiv(interleave, MOST_CELLS)
    cells = triton.cdiv(interleave, groups)
    if groups > 1:
        return cells, 1
    fitting = range(1, MOST_TOKENS // cells + 1)
    return cells, max(steps for steps in fitting if row_tokens % steps == 0)


# Without specialisation a length or a batch of one compiles no kernel of its own.
@triton.jit(do_not_specialize=["batch", "L", "P", "row_tokens", "interleave"])
@no_type_check
def pool_rows_kernel(
    xz: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    sequence: tl.tensor,
    share: tl.tensor,
    pooled: tl.tensor,
    ties: tl.tensor,
    batch: tl.tensor,
    L: tl.tensor,
    P: tl.tensor,
    row_tokens: tl.tensor,
    interleave: tl.tensor,
    E: tl.constexpr,
    BE: tl.constexpr,
    CELLS: tl.constexpr,
    STEPS: tl.constexpr,
    IS_ROW: tl.constexpr,
    IS_RASTER: tl.constexpr,
    IS_MAX: tl.constexpr,
    FAST: tl.constexpr,
) -> None:
    """Pool CELLS cells that lie side by side in a row of a full grid: all of the row, if IS_ROW."""
    TOKENS: tl.constexpr = CELLS * STEPS
    program, e, is_channel = program_and_channels(E, BE)
    parts = (interleave + CELLS - 1) // CELLS
    rows = P // interleave * parts
    sample, part = (program // rows).to(tl.int64), program % parts
    first_column = part * CELLS
    row = program % rows // parts
    n = row * row_tokens * interleave + first_column
    x = xz + sample * L * (2 * E) + e
    end = n + (row_tokens - 1) * interleave + CELLS + 3
    ends = tl.where(is_channel, tl.minimum(end, L), 0)
    taps = halved_taps(weight, bias, 0, e, is_channel, E)
    other_taps = halved_taps(weight, bias, 1, e, is_channel, E)
    sums = _empty_sums(CELLS, BE, IS_MAX)
    other_sums = _empty_sums(CELLS, BE, IS_MAX)
    window = widened(read_tokens(x, sequence, n - 3, L, ends, 6, E, IS_RASTER))
    following = read_tokens(x, sequence, n + 3, L, ends, TOKENS, E, IS_RASTER)
    for _ in range(0, row_tokens, STEPS):
        window = window + widened(following)
        n += TOKENS if IS_ROW else interleave
        # The next tokens travel while these are worked on.
        following = read_tokens(x, sequence, n + 3, L, ends, TOKENS, E, IS_RASTER)
        for i in tl.static_range(TOKENS):
            near = window[i : i + 7]
            half = convolve(taps, near[0], near[1], near[2], near[3])
            other_half = convolve(other_taps, near[6], near[5], near[4], near[3])
            # The sums of the cell whose turn it is stand first; they go to the end of the queue.
            sums = sums[1:] + (_pool_token(sums[0], half, IS_MAX, FAST),)
            other_sums = other_sums[1:] + (_pool_token(other_sums[0], other_half, IS_MAX, FAST),)
        if IS_ROW:
            window = window[TOKENS:]
        else:
            window = widened(read_tokens(x, sequence, n - 3, L, ends, 6, E, IS_RASTER))
    for i in tl.static_range(CELLS):
        column = first_column + i
        is_mine = column < tl.where(is_channel, interleave, 0)
        number = row * interleave + tl.minimum(column, interleave - 1)
        at = (sample * P + number) * E + e
        factor = tl.load(share + number)
        _write_cell(pooled + at, ties + at, sums[i], factor, is_mine, IS_MAX)
        at += batch.to(tl.int64) * P * E
        _write_cell(pooled + at, ties + at, other_sums[i], factor, is_mine, IS_MAX)


@triton.jit(do_not_specialize=["batch", "L", "P"])
@no_type_check
def pool_members_kernel(
    xz: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    sequence: tl.tensor,
    members: tl.tensor,
    first: tl.tensor,
    share: tl.tensor,
    pooled: tl.tensor,
    ties: tl.tensor,
    batch: tl.tensor,
    L: tl.tensor,
    P: tl.tensor,
    E: tl.constexpr,
    BE: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    IS_RASTER: tl.constexpr,
    IS_MAX: tl.constexpr,
    FAST: tl.constexpr,
) -> None:
    """Pool the members of one cell, whichever they are: of both directions, or of one if their cells differ."""
    program, e, is_channel = program_and_channels(E, BE)
    # Both directions, if there are two, come before the samples, as they do in the tables.
    way_sample, cell = program // P, program % P
    way, sample = way_sample // batch, (way_sample % batch).to(tl.int64)
    bounds = first + way_sample.to(tl.int64) * (P + 1) + cell
    begin = tl.load(bounds)
    count = tl.load(bounds + 1) - begin
    members += way_sample.to(tl.int64) * L + begin
    sequence += sample * L
    x = xz + sample * L * (2 * E) + e
    ends = tl.where(is_channel, L, 0)
    at = (way_sample.to(tl.int64) * P + cell) * E + e
    factor = tl.load(share + way_sample.to(tl.int64) * P + cell)
    # A read takes three steps, each of which waits for the last: member, memory row, token. Those of the next
    # member begin before the work on this one.
    position = tl.load(members, mask=count > 0, other=0)
    # Looking back, the window starts three positions before the member; looking ahead, at the member.
    lead = 3 * way - 3
    SPAN: tl.constexpr = 7 if DIRECTIONS == 1 else 4
    window = read_tokens(x, sequence, position + lead, L, ends, SPAN, E, IS_RASTER)
    position = tl.load(members + 1, mask=count > 1, other=0)
    taps = halved_taps(weight, bias, way, e, is_channel, E)
    other_taps = halved_taps(weight, bias, 1, e, is_channel, E)
    sums = _empty_sums(2, BE, IS_MAX)
    for k in range(count):
        near = widened(window)
        window = read_tokens(x, sequence, position + lead, L, ends, SPAN, E, IS_RASTER)
        position = tl.load(members + k + 2, mask=k + 2 < count, other=0)
        half = convolve(taps, near[0], near[1], near[2], near[3])
        if DIRECTIONS == 1:
            other_half = convolve(other_taps, near[6], near[5], near[4], near[3])
            sums = (_pool_token(sums[0], half, IS_MAX, FAST), _pool_token(sums[1], other_half, IS_MAX, FAST))
        else:
            half = tl.where(way == 0, half, convolve(taps, near[3], near[2], near[1], near[0]))
            sums = (_pool_token(sums[0], half, IS_MAX, FAST), sums[1])
    _write_cell(pooled + at, ties + at, sums[0], factor, is_channel, IS_MAX)
    if DIRECTIONS == 1:
        at += batch.to(tl.int64) * P * E
        _write_cell(pooled + at, ties + at, sums[1], factor, is_channel, IS_MAX)


@triton.jit
@no_type_check
def _empty_sums(CELLS: tl.constexpr, BE: tl.constexpr, IS_MAX: tl.constexpr) -> tl.tuple:
    """For each cell its sum, or its maximum and how many share it."""
    zero = tl.zeros((BE,), tl.float32)
    return ((zero - float("inf"), zero) if IS_MAX else (zero,),) * CELLS


@triton.jit
@no_type_check
def _pool_token(sums: tl.tuple, half: tl.tensor, IS_MAX: tl.constexpr, FAST: tl.constexpr) -> tl.tuple:
    """Add a token, given by half of its convolution, to a cell."""
    value, _ = silu_of_half(half, FAST)
    if IS_MAX:
        ties = tl.where(value == sums[0], sums[1] + 1.0, sums[1])
        largest = tl.maximum(value, sums[0], propagate_nan=tl.PropagateNan.ALL)
        pooled = (largest, tl.where(value > sums[0], 1.0, ties))
    else:
        pooled = (sums[0] + value,)
    return pooled


@triton.jit
@no_type_check
def _write_cell(
    pooled: tl.tensor,
    ties: tl.tensor,
    sums: tl.tuple,
    share: tl.tensor,
    is_mine: tl.tensor,
    IS_MAX: tl.constexpr,
) -> None:
    if IS_MAX:
        # Only a cell without tokens still has what it began with.
        tl.store(pooled, tl.where(sums[0] == -float("inf"), 0.0, sums[0]), mask=is_mine)
        tl.store(ties, sums[1], mask=is_mine)
    else:
        tl.store(pooled, share * sums[0], mask=is_mine)
