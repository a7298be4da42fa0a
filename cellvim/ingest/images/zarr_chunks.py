"""Files of a zarr array, looked at from outside: is a chunk there, whole, and of the size that it should have?"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.images.zarr_layout import ArrayLayout

_NOT_THERE = 2**64 - 1
_BLOSC_HEADER = struct.Struct("<BBBBIII")
_CHECKSUM_BYTES = 4


def check_chunk_file(file: Path, layout: ArrayLayout) -> bool:
    """Look at a file that is one chunk.

    Returns:
        False if it is not there.

    Raises:
        DamagedImageError: It is empty or cut off, or would decode to another size.
    """
    try:
        size = file.stat().st_size
        if size == 0:
            reason = f"chunk {file.name} is empty"
            raise DamagedImageError(reason)
        if layout.is_blosc:
            with file.open("rb") as opened:
                _check_blosc(opened, 0, size, layout)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(file, error) from error
    return True


def check_shard(file: Path, layout: ArrayLayout, wanted: Sequence[tuple[int, ...]]) -> list[bool]:
    """Look up chunks in the index of a shard.

    Args:
        file: The shard.
        layout: Of its array.
        wanted: Indices of chunks within the shard.

    Returns:
        For each chunk wanted whether it is there.

    Raises:
        DamagedImageError: The shard is cut off, or a chunk in it would decode to another size.
    """
    shard = layout.shard or layout.inner
    grid = tuple(side // inner for side, inner in zip(shard, layout.inner, strict=True))
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            index = _index(opened, size, layout, grid)
            found = []
            for place in np.ravel_multi_index(np.array(wanted).T, grid).tolist():
                offset, length = (int(number) for number in index[place])
                is_there = (offset, length) != (_NOT_THERE, _NOT_THERE)
                if is_there:
                    _check_extent(offset, length, size)
                    if layout.is_blosc:
                        _check_blosc(opened, offset, length, layout)
                found.append(is_there)
    except (FileNotFoundError, NotADirectoryError):
        return [False] * len(wanted)
    except OSError as error:
        raise _unreadable(file, error) from error
    return found


def _index(opened: BinaryIO, size: int, layout: ArrayLayout, grid: Sequence[int]) -> np.ndarray:
    count = 1
    for side in grid:
        count *= side
    length = 16 * count
    if length + _CHECKSUM_BYTES > size:
        reason = f"is truncated: a shard of {size:,} bytes is too small for its index of {count:,} chunks"
        raise DamagedImageError(reason)
    opened.seek(0 if layout.index_at_start else size - length - _CHECKSUM_BYTES)
    return np.frombuffer(opened.read(length), "<u8").reshape(count, 2)


def _check_extent(offset: int, length: int, size: int) -> None:
    if length == 0 or offset + length > size:
        reason = f"is truncated: a chunk ends at byte {offset + length:,} of {size:,} in its shard"
        raise DamagedImageError(reason)


def _check_blosc(opened: BinaryIO, offset: int, length: int, layout: ArrayLayout) -> None:
    """Compare the sizes that a chunk names with its own; blosc would allocate whatever the chunk claims."""
    opened.seek(offset)
    header = opened.read(_BLOSC_HEADER.size)
    stored = length - layout.trailer_bytes
    if len(header) < _BLOSC_HEADER.size or stored < _BLOSC_HEADER.size:
        reason = f"is truncated: a chunk of {length:,} bytes has no header"
        raise DamagedImageError(reason)
    *_, decoded, _, compressed = _BLOSC_HEADER.unpack(header)
    if decoded != layout.inner_bytes:
        reason = f"has a chunk that would decode to {decoded:,} bytes, expected {layout.inner_bytes:,}"
        raise DamagedImageError(reason)
    if compressed != stored:
        reason = f"is truncated: a chunk has {stored:,} bytes, its header says {compressed:,}"
        raise DamagedImageError(reason)


def _unreadable(file: Path, error: OSError) -> DamagedImageError:
    return DamagedImageError(f"chunk {file.name} cannot be read: {error.strerror}")
