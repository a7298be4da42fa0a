"""Reading and writing some channels of a row, which may lie outside the sequence, or of a weight."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def mask_of(channel: tl.tensor, exists: tl.tensor, E: tl.constexpr, CHUNK: tl.constexpr) -> tl.tensor:
    """Which channels of a row exist; none if the row does not."""
    if E % CHUNK == 0:
        # The interpreter cannot spread a scalar mask over a tile, but an integer.
        mask = tl.full((CHUNK,), 0, tl.int32) + exists.to(tl.int32) > 0
    else:
        mask = channel < tl.where(exists, E, 0)
    return mask


@triton.jit
@no_type_check
def load_row(
    row: tl.tensor, channel: tl.tensor, exists: tl.tensor, E: tl.constexpr, CHUNK: tl.constexpr
) -> tl.tensor:
    """Some channels of a row in float32; zero where the row or the channel does not exist."""
    return tl.load(row + channel, mask=mask_of(channel, exists, E, CHUNK), other=0.0).to(tl.float32)


@triton.jit
@no_type_check
def load_weight(weight: tl.tensor, channel: tl.tensor, E: tl.constexpr, CHUNK: tl.constexpr) -> tl.tensor:
    """Some channels of a float32 weight; zero where the channel does not exist."""
    if E % CHUNK == 0:
        return tl.load(weight + channel)
    return tl.load(weight + channel, mask=channel < E, other=0.0)


@triton.jit
@no_type_check
def store_row(
    row: tl.tensor,
    channel: tl.tensor,
    values: tl.tensor,
    exists: tl.tensor,
    E: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """Write some channels of a row, where the row and the channel exist."""
    tl.store(row + channel, values.to(row.dtype.element_ty), mask=mask_of(channel, exists, E, CHUNK))


@triton.jit
@no_type_check
def store_weight(
    weight: tl.tensor, channel: tl.tensor, values: tl.tensor, E: tl.constexpr, CHUNK: tl.constexpr
) -> None:
    """Write some channels of a float32 row, where the channel exists."""
    if E % CHUNK == 0:
        tl.store(weight + channel, values)
    else:
        tl.store(weight + channel, values, mask=channel < E)
