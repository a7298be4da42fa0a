"""Planes of zarr arrays, versions 2 and 3: which chunks hold one, whether they are there, and its pixels.

A zarr reader takes a chunk that is not there for its fill value. Here it is damage, so every chunk of a plane is
looked for before a pixel is read. tensorstore decodes.

Source:
    Zarr 2 and 3, https://zarr-specs.readthedocs.io; chunk headers of blosc 1.
"""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from cellvim.ingest.images.tiff import DECODE_ERRORS, MOST_PIXELS, DamagedImageError
from cellvim.ingest.images.zarr_chunks import check_chunk_file, check_shard
from cellvim.ingest.images.zarr_layout import ArrayLayout, layout_of, metadata_path

MOST_DECODED_BYTES = 1 << 30
# Where a chunk holds more than one plane, the others, as a rule the channels of a field, are asked for next.
CACHE_BYTES = 96 << 20
_OPEN_ARRAYS = 256
_NO_ARRAY = "is no zarr array, or its metadata are lost"


def array_layout(path: Path) -> ArrayLayout:
    """Say how an array is laid out.

    Raises:
        DamagedImageError: There is none, its metadata are damaged, or it is stored in a way that is not read here.
    """
    try:
        described = metadata_path(path)
        stat = described.stat()
    except (OSError, ValueError) as error:
        raise DamagedImageError(_NO_ARRAY) from error
    if not S_ISREG(stat.st_mode):
        raise DamagedImageError(_NO_ARRAY)
    # A file that was replaced is another file: arrays are remembered, and sources may be repaired meanwhile.
    return _remembered_layout(described, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


def check_plane(path: Path, part: Sequence[int]) -> ArrayLayout:
    """Look for every chunk of a plane, without decoding any.

    Args:
        path: Folder of the array.
        part: Index of all axes but the last two.

    Raises:
        DamagedImageError: See `array_layout`; or chunks are missing, cut off or not what the metadata say.
    """
    layout = array_layout(path)
    _check_size(layout, part)
    if layout.is_readable:
        _check_chunks(path, layout, part)
    return layout


def read_plane(path: Path, part: Sequence[int]) -> NDArray[np.unsignedinteger]:
    """Read a plane, axes (y, x), native byte order.

    Raises:
        DamagedImageError: See `check_plane`; or a chunk cannot be decoded, or every pixel is zero.
    """
    pixels = read_pixels(path, part)
    if not pixels.any():
        reason = "every pixel is zero"
        raise DamagedImageError(reason)
    return pixels


def read_pixels(path: Path, part: Sequence[int]) -> NDArray[np.unsignedinteger]:
    """Read a plane as `read_plane` does, be it of zeros.

    Raises:
        DamagedImageError: See `check_plane`; or a chunk cannot be decoded.
    """
    layout = check_plane(path, part)
    if not layout.is_readable:
        reason = f"holds {layout.dtype}, expected uint8 or uint16"
        raise DamagedImageError(reason)
    try:
        stat = layout.metadata.stat()
        array = _open_array(layout, (stat.st_mtime_ns, stat.st_size, stat.st_ino), os.getpid())
        pixels = np.asarray(array[tuple(part)].read().result())
    except DECODE_ERRORS as error:
        raise DamagedImageError(_first_line(error)) from error
    if pixels.shape != layout.shape[-2:] or pixels.dtype.name != layout.dtype:
        reason = f"decodes to {pixels.shape} {pixels.dtype}, its metadata say {layout.shape} {layout.dtype}"
        raise DamagedImageError(reason)
    native: NDArray[np.unsignedinteger] = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("="))
    return native


@lru_cache(maxsize=2 * _OPEN_ARRAYS)
def _remembered_layout(described: Path, _version: tuple[int, int, int]) -> ArrayLayout:
    return layout_of(described)


@lru_cache(maxsize=_OPEN_ARRAYS)
def _open_array(layout: ArrayLayout, _version: tuple[int, int, int], process: int) -> Any:
    spec = {
        "driver": "zarr" if layout.is_v2 else "zarr3",
        "kvstore": {"driver": "file", "path": str(layout.metadata.parent.resolve())},
        # Should a chunk vanish after it was looked for.
        "fill_missing_data_reads": False,
    }
    if layout.is_v2:
        spec["metadata"] = {"dimension_separator": layout.separator}
    return ts.open(
        spec, read=True, context=_context(process, is_cached=math.prod(layout.inner[:-2]) > 1)
    ).result()


@lru_cache(maxsize=2)
def _context(_process: int, *, is_cached: bool) -> Any:
    """Cache of one process: a tensorstore context does not survive a fork."""
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES if is_cached else 0}})


def _check_size(layout: ArrayLayout, part: Sequence[int]) -> None:
    sides = layout.shape[:-2]
    if len(part) != len(sides) or any(
        not 0 <= index < side for index, side in zip(part, sides, strict=False)
    ):
        reason = f"has no such plane: its shape is {list(layout.shape)}"
        raise DamagedImageError(reason)
    height, width = layout.shape[-2:]
    if height * width > MOST_PIXELS:
        reason = f"claims {width} x {height} pixels, at most {MOST_PIXELS:,} are read"
        raise DamagedImageError(reason)
    counts = [-(-side // chunk) for side, chunk in zip(layout.shape[-2:], layout.inner[-2:], strict=True)]
    decoded = math.prod(counts) * layout.inner_bytes
    if decoded > MOST_DECODED_BYTES:
        reason = f"needs {decoded:,} bytes of decoded chunks for one plane, at most {MOST_DECODED_BYTES:,} are read"
        raise DamagedImageError(reason)


def _check_chunks(path: Path, layout: ArrayLayout, part: Sequence[int]) -> None:
    lacking = [0, 0]
    for name, inner in _files_of(layout, part):
        file = path / name
        found = check_shard(file, layout, inner) if layout.shard else [check_chunk_file(file, layout)]
        lacking[0] += found.count(False)
        lacking[1] += len(found)
    if lacking[0]:
        reason = (
            f"lacks {lacking[0]} of {lacking[1]} chunks of the plane, which zarr would read as "
            f"{layout.fill}: lost, or left out by a writer that skips empty chunks"
        )
        raise DamagedImageError(reason)


def _files_of(layout: ArrayLayout, part: Sequence[int]) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """Files that hold a plane, and of each the inner chunks that the plane needs, by their index in the file."""
    stored = layout.shard or layout.inner
    height, width = layout.shape[-2:]
    leading = tuple(index // side for index, side in zip(part, stored, strict=False))
    leading_inner = tuple(
        index % side // inner for index, side, inner in zip(part, stored, layout.inner, strict=False)
    )
    for row, column in itertools.product(range(-(-height // stored[-2])), range(-(-width // stored[-1]))):
        rows = _inner_within(height, row, stored[-2], layout.inner[-2])
        columns = _inner_within(width, column, stored[-1], layout.inner[-1])
        inner = [(*leading_inner, y, x) for y in range(rows) for x in range(columns)]
        yield layout.file_name((*leading, row, column)), inner


def _inner_within(side: int, number: int, stored: int, inner: int) -> int:
    """How many inner chunks of a file hold pixels along one axis; those beyond the array's edge hold none."""
    return -(-min(stored, side - number * stored) // inner)


def _first_line(error: Exception) -> str:
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    # tensorstore repeats the whole specification, which says nothing to a reader of the message.
    return f"cannot be decoded: {text.partition(' [')[0][:200]}"
