"""Residual addition and RMSNorm on a GPU: every element is read once and written once, both ways."""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.add_rms_norm.naive import NORM_EPS

WARP_ELEMENTS = 1024
"""Elements per warp: two rows or more of narrow tokens, to have enough bytes under way."""
PROGRAM_ROWS = 32
"""Rows over which one partial sum of the weight's gradient runs."""


def add_rms_norm(
    tokens: Float[Tensor, "... d"], residual: Float[Tensor, "... d"], weight: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"], Float[Tensor, "..."]]:
    """Add `tokens` to the residual stream, and normalise the sum, in float32.

    Args:
        tokens: float32 or bfloat16, contiguous.
        residual: Stream of all blocks before, contiguous float32.
        weight: Scale per feature.

    Returns:
        Normalised tokens in the type of `tokens`, the new residual stream, and the factor that each token was
        normalised by.
    """
    normed, stream = torch.empty_like(tokens), torch.empty_like(residual)
    scale = residual.new_empty(residual.shape[:-1])
    rows, width = scale.numel(), len(weight)
    block, tile_rows, warps = tile_of(width)
    add_rms_norm_kernel[(triton.cdiv(rows, tile_rows),)](
        tokens,
        residual,
        weight,
        normed,
        stream,
        scale,
        rows,
        NORM_EPS,
        D=width,
        ROWS=tile_rows,
        BLOCK=block,
        num_warps=warps,
        enable_fp_fusion=False,
    )
    return normed, stream, scale


def add_rms_norm_backward(
    dnormed: Float[Tensor, "... d"],
    dstream: Float[Tensor, "... d"],
    stream: Float[Tensor, "... d"],
    scale: Float[Tensor, "..."],
    weight: Float[Tensor, " d"],
) -> tuple[Float[Tensor, "... d"], Float[Tensor, " d"]]:
    """Compute the gradient of both summands, which is the same, and of the weight; bit-equal in every run.

    Args:
        dnormed: Gradient of the normalised tokens, contiguous.
        dstream: Gradient of the new residual stream, contiguous.
        stream: Result of the forward pass.
        scale: Result of the forward pass.
        weight: Scale per feature.

    Returns:
        Gradients in float32.
    """
    rows, width = scale.numel(), len(weight)
    block, tile_rows, warps = tile_of(width)
    programs = triton.cdiv(rows, PROGRAM_ROWS)
    dtotal, partial = torch.empty_like(stream), stream.new_empty(programs, width)
    add_rms_norm_backward_kernel[(programs,)](
        dnormed,
        dstream,
        stream,
        scale,
        weight,
        dtotal,
        partial,
        rows,
        D=width,
        ROWS=tile_rows,
        BLOCK=block,
        STEPS=PROGRAM_ROWS // tile_rows,
        num_warps=warps,
        enable_fp_fusion=False,
    )
    return dtotal, partial.sum(0)


def tile_of(width: int) -> tuple[int, int, int]:
    """Choose columns, rows and warps of a tile. A row never leaves its warp unless it is very wide."""
    block = triton.next_power_of_2(width)
    rows = min(8, max(1, WARP_ELEMENTS // block))
    return block, rows, max(1, block // WARP_ELEMENTS)


@triton.jit
@no_type_check
def add_rms_norm_kernel(
    tokens: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    normed: tl.tensor,
    stream: tl.tensor,
    scale: tl.tensor,
    rows: tl.tensor,
    eps: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Add and normalise ROWS rows."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    is_row = row < rows - first
    inside = is_row[:, None] & (column < D)[None, :]
    tile = first * D + row[:, None] * D + column[None, :]
    w = tl.load(weight + column, mask=column < D, other=0.0)
    total = tl.load(residual + tile, mask=inside, other=0.0)
    total += tl.load(tokens + tile, mask=inside, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(total * total, axis=1) * (1.0 / D) + eps)
    tl.store(stream + tile, total, mask=inside)
    tl.store(scale + first + row, factor, mask=is_row)
    result = total * factor[:, None] * w[None, :]
    tl.store(normed + tile, result.to(normed.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def add_rms_norm_backward_kernel(
    dnormed: tl.tensor,
    dstream: tl.tensor,
    stream: tl.tensor,
    scale: tl.tensor,
    weight: tl.tensor,
    dtotal: tl.tensor,
    partial: tl.tensor,
    rows: tl.tensor,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
) -> None:
    """Go through ROWS * STEPS rows, with one partial sum of the weight's gradient."""
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    w = tl.load(weight + column, mask=column < D, other=0.0)
    dweight = tl.zeros((ROWS, BLOCK), tl.float32)
    for step in range(STEPS):
        first = (program * STEPS + step) * ROWS
        is_row = row < rows - first
        inside = is_row[:, None] & (column < D)[None, :]
        tile = first * D + row[:, None] * D + column[None, :]
        factor = tl.load(scale + first + row, mask=is_row, other=0.0)[:, None]
        unit = tl.load(stream + tile, mask=inside, other=0.0) * factor
        dn = tl.load(dnormed + tile, mask=inside, other=0.0).to(tl.float32)
        dweight = tl.fma(dn, unit, dweight)
        dunit = dn * w[None, :]
        along = tl.sum(dunit * unit, axis=1) * (1.0 / D)
        through = tl.fma(unit, -along[:, None], dunit)
        result = tl.fma(through, factor, tl.load(dstream + tile, mask=inside, other=0.0))
        tl.store(dtotal + tile, result, mask=inside)
    tl.store(partial + program * D + column, tl.sum(dweight, axis=0), mask=column < D)
