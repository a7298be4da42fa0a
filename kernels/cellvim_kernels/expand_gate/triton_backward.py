"""Gradients of the fused expansion that need a whole row of channels: gate, LayerNorm and the mixed value."""

# Triton's tuples cannot be unpacked into one another.
# ruff: noqa: RUF005

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.expand_gate.naive import NORM_EPS
from cellvim_kernels.expand_gate.triton_mix import (
    STEP,
    Tiling,
    mix_rows,
    positions_per_program,
    standardise,
    sum_products,
    sum_rows,
    taps_first,
)
from cellvim_kernels.expand_gate.triton_rows import load_row, load_weight, store_row, store_weight
from cellvim_kernels.tables import Tables
from cellvim_kernels.triton_math import sigmoid

LONGEST_WALK = 64


def expand_gate_backward(
    dout: Float[Tensor, "b L E"],
    xz: Float[Tensor, "b L XZ"],
    y: Float[Tensor, "2 b P E"],
    conv_weight: Float[Tensor, "2 E 4"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    norm: tuple[Float[Tensor, " E"], Float[Tensor, " E"]] | None,
    tables: Tables,
    dxz: Float[Tensor, "b L XZ"],
) -> tuple[Float[Tensor, "b L E"], Float[Tensor, " E"] | None, Float[Tensor, " E"] | None]:
    """Gradients of `expand_gate`; the mixed value is computed again. Deterministic.

    Args:
        dout: Gradient of the gated tokens, in memory order.
        xz: See `expand_gate`, as all that follow.
        y: See there.
        conv_weight: See there.
        conv_bias: See there.
        D: See there.
        norm: See there.
        tables: See there.
        dxz: Receives the gradient of z in its second half; the first is left alone.

    Returns:
        Gradient of the mixed value in the order of the sequence, in the type of `xz`, and those of the LayerNorm's
        scale and shift.
    """
    batch, length, width = dout.shape
    walk = positions_per_program(batch, length, LONGEST_WALK)
    programs = batch * triton.cdiv(length, walk)
    dmixed = torch.empty_like(dout)
    scale, shift = (D, D) if norm is None else norm
    dnorm = torch.empty(2, programs, width, dtype=torch.float32, device=xz.device) if norm is not None else D
    tiling = backward_tiling(width, xz.dtype)
    expand_gate_backward_kernel[(programs,)](
        dmixed,
        dxz,
        dnorm,
        dout,
        xz,
        y,
        taps_first(conv_weight),
        conv_bias,
        D,
        scale,
        shift,
        tables.sequence,
        tables.cell,
        batch,
        length,
        tables.cells,
        walk,
        0 if len(tables.sequence) == 1 else length,
        tables.cell[0].numel(),
        E=width,
        CHUNK=tiling.chunk,
        CHUNKS=tiling.chunks,
        STEP=STEP,
        SHARES_CELLS=len(tables.cell) == 1,
        HAS_NORM=norm is not None,
        EPS=4 * NORM_EPS,
        FAST=xz.is_cuda and xz.dtype == torch.bfloat16,
        num_warps=tiling.warps,
        enable_fp_fusion=False,
    )
    if norm is None:
        return dmixed, None, None
    dscale, dshift = dnorm.sum(1)
    # Not views of one tensor: an operator's results may not share memory.
    return dmixed, dscale.clone(), dshift.clone()


def backward_tiling(width: int, dtype: torch.dtype) -> Tiling:
    """Tiles of the backward pass: the exact exponential of float32 leaves registers for half as many channels."""
    return Tiling.of(width, channels_per_warp=192 if dtype == torch.bfloat16 else 96, most_warps=8)


@triton.jit
@no_type_check
def expand_gate_backward_kernel(  # noqa: C901, PLR0912  (branches are decided when it is compiled)
    dmixed: tl.tensor,
    dxz: tl.tensor,
    dnorm: tl.tensor,
    dout: tl.tensor,
    xz: tl.tensor,
    y: tl.tensor,
    taps: tl.tensor,
    conv_bias: tl.tensor,
    D: tl.tensor,
    norm_scale: tl.tensor,
    norm_shift: tl.tensor,
    sequence: tl.tensor,
    cell: tl.tensor,
    batch: tl.tensor,
    length: tl.tensor,
    cells: tl.tensor,
    walk: tl.tensor,
    table_stride: tl.tensor,
    direction_stride: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    STEP: tl.constexpr,
    SHARES_CELLS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    EPS: tl.constexpr,
    FAST: tl.constexpr,
) -> None:
    """Walk along the sequence as the forward pass does; sums over positions stay with the program."""
    walks = tl.cdiv(length, walk)
    sample = (tl.program_id(0) // walks).to(tl.int64)
    first = (tl.program_id(0) % walks) * walk
    x = xz + sample * length * (2 * E)
    dz = dxz + sample * length * (2 * E) + E
    gradient = dout + sample * length * E
    dmixed += sample * length * E
    y_forward = y + sample * cells * E
    y_backward = y_forward + batch.to(tl.int64) * cells * E
    sequence += sample * table_stride
    cell += sample * table_stride
    sums = ()
    for _ in tl.static_range(CHUNKS):
        sums = sums + ((tl.zeros((CHUNK,), tl.float32), tl.zeros((CHUNK,), tl.float32)),)
    for start in range(first, min(first + walk, length), STEP):
        normed, rows, exist = mix_rows(
            x, y_forward, y_backward, taps, conv_bias, D, sequence, cell, direction_stride, start, length,
            E, CHUNK, CHUNKS, STEP, SHARES_CELLS, FAST,
        )  # fmt: skip
        if HAS_NORM:
            normed, factors = standardise(normed, E, CHUNK, CHUNKS, STEP, EPS)
        dstandard = ()
        new_sums = ()
        for chunk in tl.static_range(CHUNKS):
            channel = chunk * CHUNK + tl.arange(0, CHUNK)
            if HAS_NORM:
                scale = load_weight(norm_scale, channel, E, CHUNK)
                shift = load_weight(norm_shift, channel, E, CHUNK)
                dscale, dshift = sums[chunk]
            of_chunk = ()
            for index in tl.static_range(STEP):
                exists = exist[index + 3]
                z = load_row(x + rows[index + 3] * (2 * E) + E, channel, exists, E, CHUNK)
                upstream = load_row(gradient + rows[index + 3] * E, channel, exists, E, CHUNK)
                probability = sigmoid(z, FAST)
                gate = z * probability
                slope = tl.fma(gate, 1.0 - probability, probability)
                dnormed = upstream * gate
                if HAS_NORM:
                    gated = tl.fma(normed[chunk][index], scale, shift)
                    dscale = tl.fma(dnormed, normed[chunk][index], dscale)
                    dshift += dnormed
                    of_chunk = of_chunk + (dnormed * scale,)
                else:
                    gated = normed[chunk][index] * 0.5
                    store_row(dmixed + (start + index) * E, channel, dnormed, exists, E, CHUNK)
                store_row(dz + rows[index + 3] * (2 * E), channel, upstream * gated * slope, exists, E, CHUNK)
            if HAS_NORM:
                dstandard = dstandard + (of_chunk,)
                new_sums = new_sums + ((dscale, dshift),)
        if HAS_NORM:
            sums = new_sums
            means = sum_rows(dstandard, CHUNKS, STEP)
            slopes = sum_products(dstandard, normed, CHUNKS, STEP)
            for chunk in tl.static_range(CHUNKS):
                channel = chunk * CHUNK + tl.arange(0, CHUNK)
                for index in tl.static_range(STEP):
                    centred = dstandard[chunk][index] - means[index] * (1.0 / E)
                    centred = tl.fma(normed[chunk][index], -slopes[index] * (1.0 / E), centred)
                    # The rows that were brought to variance 1 were twice the mixed value.
                    values = centred * (2.0 * factors[index])
                    store_row(dmixed + (start + index) * E, channel, values, exist[index + 3], E, CHUNK)
    if HAS_NORM:
        partial = dnorm + tl.program_id(0).to(tl.int64) * E
        programs = tl.num_programs(0).to(tl.int64)
        for chunk in tl.static_range(CHUNKS):
            channel = chunk * CHUNK + tl.arange(0, CHUNK)
            dscale, dshift = sums[chunk]
            store_weight(partial, channel, dscale, E, CHUNK)
            store_weight(partial + programs * E, channel, dshift, E, CHUNK)
