"""Backward pass of both convolutions and the pooling.

The kernel walks along the sequence. Having read token n, it knows all that position n of the looking-back direction
and position n - 3 of the looking-ahead direction need, and all that dx[n - 3] still lacks: so a window of four
tokens, three sums of dx and the sums of the parameters' gradients are all it keeps, in registers.
"""

# ruff: noqa: RUF005  (Triton knows no starred tuples)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.conv_pool.triton_conv import (
    channel_block,
    convolve,
    halved_taps,
    has_fast_silu,
    is_below,
    memory_row,
    program_and_channels,
    read_cell,
    read_row,
    silu_and_slope,
)
from cellvim_kernels.layout import Pool
from cellvim_kernels.tables import Tables

LANE_BYTES = 4
"""Tokens' bytes of a thread, two channels in bf16: with four, 24 sums and weights for each fill the registers."""
PROGRAMS = 8192
"""Wished number of programs: enough for several rounds on the largest GPU, few enough that the partial sums of
the parameters' gradients, 12 rows for each, stay small beside the tokens."""
SHORTEST_SEGMENT = 32
"""Positions: the three that each segment computes twice shall stay few beside it."""


def conv_pool_backward(
    xz: Float[Tensor, "b L XZ"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    tables: Tables,
    pool: Pool,
    pooled: Float[Tensor, "2 b P E"],
    ties: Float[Tensor, "..."],
    dpooled: Float[Tensor, "2 b P E"],
    dmixed: Float[Tensor, "b L E"],
    dxz: Float[Tensor, "b L XZ"],
) -> tuple[Float[Tensor, "2 E K"], Float[Tensor, "2 E"], Float[Tensor, "2 E"]]:
    """Run the convolutions again and carry the gradients of both their readers back to x, taps, bias and D.

    All tensors are contiguous.

    Args:
        xz: Output of in_proj in memory order, x in the first half.
        conv_weight: Depthwise taps of both directions; the last one meets the token itself.
        conv_bias: Bias of the convolution.
        D: Weight of the local path.
        tables: Order of the sequence and cell of each token.
        pool: How the tokens of a cell became one.
        pooled: Result of the forward pass; read only for ``max``.
        ties: Second result of the forward pass; read only for ``max``.
        dpooled: Gradient of the pooled cells.
        dmixed: Gradient of the mean of both directions, in the order of the sequence.
        dxz: The gradient of x is written into its first half, in memory order.

    Returns:
        Gradients of the taps, of the bias and of D, summed in an order that depends on the shapes alone.
    """
    batch, length, double_width = xz.shape
    width = double_width // 2
    block = channel_block(width, LANE_BYTES // xz.element_size())
    blocks = triton.cdiv(width, block)
    segment = _segment_length(batch, length, blocks)
    segments = triton.cdiv(length, segment)
    # Rows of a direction: four taps, the bias, D.
    partial = torch.empty(batch * segments, 2, 6, width, dtype=torch.float32, device=xz.device)
    walk_back_kernel[(batch * segments * blocks,)](
        xz, conv_weight, conv_bias, D, tables.sequence, tables.cell, tables.share, pooled, ties, dpooled, dmixed,
        dxz, partial, batch, length, tables.cells, segment, segments,
        E=width, BE=block, DIRECTIONS=len(tables.cell), IS_SHARED=tables.sequence.shape[0] == 1,
        IS_RASTER=tables.is_raster, IS_FULL=tables.row_tokens > 0, IS_MAX=pool == "max",
        FAST=has_fast_silu(xz), num_warps=1, enable_fp_fusion=False,
    )  # fmt: skip
    total = partial.sum(0)
    return total[:, :4].transpose(1, 2).contiguous(), total[:, 4].contiguous(), total[:, 5].contiguous()


def _segment_length(batch: int, length: int, blocks: int) -> int:
    wished = max(SHORTEST_SEGMENT, length * batch * blocks // PROGRAMS)
    segments = max(1, length // wished)
    longest: int = 4 * triton.cdiv(length, 4 * segments)
    return longest


@triton.jit(do_not_specialize=["batch", "L", "P", "segment", "segments"])
@no_type_check
def walk_back_kernel(
    xz: tl.tensor, weight: tl.tensor, bias: tl.tensor, D: tl.tensor,
    sequence: tl.tensor, cell: tl.tensor, share: tl.tensor,
    pooled: tl.tensor, ties: tl.tensor, dpooled: tl.tensor, dmixed: tl.tensor, dxz: tl.tensor, partial: tl.tensor,
    batch: tl.tensor, L: tl.tensor, P: tl.tensor, segment: tl.tensor, segments: tl.tensor,
    E: tl.constexpr, BE: tl.constexpr, DIRECTIONS: tl.constexpr, IS_SHARED: tl.constexpr,
    IS_RASTER: tl.constexpr, IS_FULL: tl.constexpr, IS_MAX: tl.constexpr, FAST: tl.constexpr,
) -> None:  # fmt: skip
    """Walk one segment of one sample, and sum what its positions add to the parameters' gradients."""
    program, e, is_channel = program_and_channels(E, BE)
    sample = (program // segments).to(tl.int64)
    start = program % segments * segment
    stop = tl.minimum(start + segment, L)
    if not IS_SHARED:
        sequence += sample * L
        cell += sample * L
        share += sample * P
    other_cell, other_share = cell, share
    if DIRECTIONS == 2:
        other_cell += batch.to(tl.int64) * L
        other_share += batch.to(tl.int64) * P
    cells = sample * P * E + e
    other_cells = cells + batch.to(tl.int64) * P * E
    pointers = (
        xz + sample * L * (2 * E) + e, dmixed + sample * L * E + e, dxz + sample * L * (2 * E) + e,
        sequence, cell, other_cell, share, other_share,
        (dpooled + cells, pooled + cells, ties + cells),
        (dpooled + other_cells, pooled + other_cells, ties + other_cells),
    )  # fmt: skip
    weights = (
        halved_taps(weight, bias, 0, e, is_channel, E),
        halved_taps(weight, bias, 1, e, is_channel, E),
        0.5 * tl.load(D + e, mask=is_channel, other=0.0),
        0.5 * tl.load(D + E + e, mask=is_channel, other=0.0),
    )
    bounds = (start, stop, L, tl.where(is_channel, L, 0), is_channel)
    zero = tl.zeros((BE,), tl.float32)
    state = (_window_before(pointers, bounds, E, IS_RASTER), (zero,) * 3, (zero,) * 12)
    # Inside, no row can lie outside the segment. The last steps complete dx of its last three tokens.
    inner_stop = start + 4 + tl.maximum(stop - start - 4, 0) // 4 * 4
    state = _four_steps(
        state,
        start,
        bounds,
        pointers,
        weights,
        E,
        DIRECTIONS,
        IS_RASTER,
        IS_FULL,
        IS_MAX,
        FAST,
        IS_MASKED=True,
    )
    for n in range(start + 4, inner_stop, 4):
        state = _four_steps(
            state,
            n,
            bounds,
            pointers,
            weights,
            E,
            DIRECTIONS,
            IS_RASTER,
            IS_FULL,
            IS_MAX,
            FAST,
            IS_MASKED=E % BE != 0,
        )
    for n in range(inner_stop, stop + 3, 4):
        state = _four_steps(
            state,
            n,
            bounds,
            pointers,
            weights,
            E,
            DIRECTIONS,
            IS_RASTER,
            IS_FULL,
            IS_MAX,
            FAST,
            IS_MASKED=True,
        )
    row = partial + program.to(tl.int64) * (12 * E) + e
    for i in tl.static_range(12):
        # Half, since the slopes are doubled; that of D, since the directions are averaged.
        tl.store(row + i * E, 0.5 * state[2][i], mask=is_channel)


@triton.jit
@no_type_check
def _window_before(
    pointers: tl.tuple, bounds: tl.tuple, E: tl.constexpr, IS_RASTER: tl.constexpr
) -> tl.tuple:
    """The three positions before a segment: x, dmixed, memory row, cell looking ahead and its share."""
    x, dmixed, _, sequence, _, cell, _, share, _, _ = pointers
    start, _, L, ends, _ = bounds
    window = ((), (), (), (), ())
    for i in tl.static_range(3):
        position = start - 3 + i
        row = memory_row(sequence, position, L, IS_RASTER)
        number = tl.load(cell + position, mask=is_below(position, L), other=0)
        window = (
            window[0] + (read_row(x + row * (2 * E), position, ends, IS_MASKED=True),),
            window[1] + (read_row(dmixed + position * E, position, ends, IS_MASKED=True),),
            window[2] + (row,),
            window[3] + (number,),
            window[4] + (tl.load(share + number),),
        )
    return window


@triton.jit
@no_type_check
def _four_steps(
    state: tl.tuple,
    n: tl.tensor,
    bounds: tl.tuple,
    pointers: tl.tuple,
    weights: tl.tuple,
    E: tl.constexpr,
    DIRECTIONS: tl.constexpr,
    IS_RASTER: tl.constexpr,
    IS_FULL: tl.constexpr,
    IS_MAX: tl.constexpr,
    FAST: tl.constexpr,
    IS_MASKED: tl.constexpr,
) -> tl.tuple:
    """Read tokens n to n + 3, and finish dx of n - 3 to n. Four, so that the window's parts change places for free."""
    x_at, dmixed_at, dx_at, sequence, cell, other_cell, share, other_share, forward, backward = pointers
    start, stop, L, ends, is_channel = bounds
    back, ahead, half_D, other_half_D = weights
    window, dx, sums = state
    x, dmixed, rows, cells, shares = window
    into, other_into, forward_shares = (), (), ()
    # All reads come first: the compiler may not move them ahead of the writes.
    for i in tl.static_range(4):
        position = n + i
        row = memory_row(sequence, position, L, IS_RASTER)
        # Counted from n in raster order, so that the offsets of the four rows are constants.
        x_row = x_at + n * (2 * E) + i * (2 * E) if IS_RASTER else x_at + row * (2 * E)
        x = x + (read_row(x_row, position, ends, IS_MASKED),)
        dmixed = dmixed + (read_row(dmixed_at + n * E + i * E, position, ends, IS_MASKED),)
        number = tl.load(cell + position, mask=is_below(position, L), other=0)
        factor = shares[2] if IS_FULL else tl.load(share + number)
        into = into + (read_cell(forward, number * E, position, ends, IS_MAX, IS_MASKED),)
        forward_shares = forward_shares + (factor,)
        if DIRECTIONS == 2:
            number = tl.load(other_cell + position, mask=is_below(position, L), other=0)
            factor = tl.load(other_share + number)
        other_into = other_into + (read_cell(backward, cells[i] * E, position - 3, ends, IS_MAX, IS_MASKED),)
        rows, cells, shares = rows + (row,), cells + (number,), shares + (factor,)
    for i in tl.static_range(4):
        v, slope = silu_and_slope(convolve(back, x[i], x[i + 1], x[i + 2], x[i + 3]), FAST)
        g = _gradient(into[i], v, forward_shares[i], half_D * dmixed[i + 3], IS_MAX) * slope
        other_v, slope = silu_and_slope(convolve(ahead, x[i + 3], x[i + 2], x[i + 1], x[i]), FAST)
        h = _gradient(other_into[i], other_v, shares[i], other_half_D * dmixed[i], IS_MAX) * slope
        done = tl.fma(back[0], g, tl.fma(ahead[3], h, dx[0]))
        dx = (
            tl.fma(back[1], g, tl.fma(ahead[2], h, dx[1])),
            tl.fma(back[2], g, tl.fma(ahead[1], h, dx[2])),
            tl.fma(back[3], g, ahead[0] * h),
        )
        dx_row = dx_at + (n - 3) * (2 * E) + i * (2 * E) if IS_RASTER else dx_at + rows[i] * (2 * E)
        done = done.to(dx_at.dtype.element_ty)
        local, other_local = dmixed[i + 3], dmixed[i]
        if IS_MASKED:
            tl.store(dx_row, done, mask=is_below(n + i - 3 - start, tl.where(is_channel, stop - start, 0)))
            # What lies past the end of a segment is counted by the next one.
            is_mine = ((n + i < stop) | (stop == L)).to(tl.float32)
            g, h, local, other_local = g * is_mine, h * is_mine, local * is_mine, other_local * is_mine
        else:
            tl.store(dx_row, done)
        sums = (
            tl.fma(g, x[i], sums[0]), tl.fma(g, x[i + 1], sums[1]),
            tl.fma(g, x[i + 2], sums[2]), tl.fma(g, x[i + 3], sums[3]),
            sums[4] + g, tl.fma(local, v, sums[5]),
            tl.fma(h, x[i + 3], sums[6]), tl.fma(h, x[i + 2], sums[7]),
            tl.fma(h, x[i + 1], sums[8]), tl.fma(h, x[i], sums[9]),
            sums[10] + h, tl.fma(other_local, other_v, sums[11]),
        )  # fmt: skip
    return (x[4:], dmixed[4:], rows[4:], cells[4:], shares[4:]), dx, sums


@triton.jit
@no_type_check
def _gradient(
    cell: tl.tuple, v: tl.tensor, share: tl.tensor, local: tl.tensor, IS_MAX: tl.constexpr
) -> tl.tensor:
    """Gradient of a convolved token, from its cell and from the local path."""
    if IS_MAX:
        gradient = local + tl.where(v == cell[1], cell[0] / tl.maximum(cell[2], 1.0), 0.0)
    else:
        gradient = tl.fma(share, cell[0], local)
    return gradient
