"""The zarr array of one field: one shard, blosc, the same bytes for the same pixels."""

from pathlib import Path
from typing import Any, Literal

import numcodecs.blosc
import numpy as np
import tensorstore as ts
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from cellvim.errors import InputError
from cellvim.store import layout

Codec = Literal["zstd", "lz4"]

# Decoded shard indices and chunks; small, since random crops rarely come back to the same chunk.
CACHE_BYTES = 32 << 20

# Several threads append their blocks to one Blosc buffer in the order they finish: same pixels, other bytes.
numcodecs.blosc.use_threads = False


def write_array(path: Path, pixels: NDArray[np.unsignedinteger], *, codec: Codec) -> None:
    """Write a field, axes (c, y, x), as a zarr v3 array in a folder that does not exist yet."""
    chunk = (len(pixels), *(layout.inner_chunk_px(side) for side in pixels.shape[1:]))
    shard = tuple(-(-side // inner) * inner for side, inner in zip(pixels.shape, chunk, strict=True))
    shuffle = BloscShuffle.bitshuffle if codec == "zstd" else BloscShuffle.shuffle
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=chunk,
        shards=shard,
        compressors=BloscCodec(cname=codec, clevel=1, shuffle=shuffle),
        fill_value=0,
        dimension_names=("c", "y", "x"),
        # A missing shard then always means damage, never a field of zeros.
        config={"write_empty_chunks": True},
    )
    array[:] = pixels


def open_array(path: Path, context: Any) -> Any:
    """Open a field's array for reading, as a tensorstore.

    Args:
        path: Folder of the array.
        context: From `new_context`, of this process.

    Raises:
        InputError: The array is missing or damaged.
    """
    if not (path / layout.SHARD).is_file():
        # A zarr reader takes a missing shard for zeros, which must never pass for data.
        raise _unreadable(path, "its pixels are not there")
    # Resolved, as tensorstore refuses a path with `..` in it.
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path.resolve())}}
    try:
        return ts.open(spec, read=True, context=context).result()
    except ValueError as error:
        raise _unreadable(path, error) from error


def new_context() -> Any:
    """Make a cache for one process; a tensorstore context does not survive a fork."""
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})


def _unreadable(path: Path, reason: object) -> InputError:
    found = f"{path} cannot be read: {str(reason).splitlines()[0]}"
    return InputError(found, hint="`cellvim verify` lists all damage; ingest again")
