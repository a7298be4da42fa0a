"""The zarr array of one field: one shard, blosc, the same bytes for the same pixels."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import google_crc32c
import numpy as np
import tensorstore as ts
import zarr
from numcodecs import blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import MemoryStore

from cellvim.errors import InputError
from cellvim.store import layout
from cellvim.store.object_place import NETWORK
from cellvim.store.object_place import context as shared_context
from cellvim.store.place import LocalPlace, Place

Codec = Literal["zstd", "lz4"]

# Decoded shard indices and chunks; small, since random crops rarely come back to the same chunk.
CACHE_BYTES = 32 << 20

_HINT = "`cellvim verify` lists all damage; ingest again with --overwrite"

Shape = tuple[int, int, int]

# Several threads append their blocks to one Blosc buffer in the order they finish: same pixels, other bytes.
blosc.use_threads = False
_SHUFFLES = {"zstd": blosc.BITSHUFFLE, "lz4": blosc.SHUFFLE}


def encode_array(pixels: NDArray[np.unsignedinteger], *, codec: Codec) -> dict[str, bytes]:
    """Encode a field, axes (c, y, x), as the files of a zarr v3 array: name to content.

    The chunks are those that zarr-python writes, which takes 1.4 times as long, in threads of its own. tensorstore
    takes as long as this, but two threads that encode fields of 12 MB then hold 190 MB instead of 30.
    """
    channels, height, width = pixels.shape
    content = _metadata((channels, height, width), pixels.dtype.name, codec)
    return {"zarr.json": content, layout.SHARD: _shard(pixels, codec)}


def _shard(pixels: NDArray[np.unsignedinteger], codec: Codec) -> bytes:
    """Compress chunk by chunk; then come where each begins and how long it is, and a checksum of that.

    Source:
        Zarr v3, codec `sharding_indexed`, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
    """
    chunk = (len(pixels), *(layout.inner_chunk_px(side) for side in pixels.shape[1:]))
    corners = [
        (top, left)
        for top in range(0, pixels.shape[1], chunk[1])
        for left in range(0, pixels.shape[2], chunk[2])
    ]
    parts = [
        bytes(blosc.compress(_chunk(pixels, corner, chunk), codec.encode(), 1, _SHUFFLES[codec]))
        for corner in corners
    ]
    lengths = np.array([len(part) for part in parts], dtype="<u8")
    index = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1).astype("<u8").tobytes()
    return b"".join([*parts, index, google_crc32c.value(index).to_bytes(4, "little")])


def _chunk(
    pixels: NDArray[np.unsignedinteger], corner: tuple[int, int], shape: Sequence[int]
) -> NDArray[np.unsignedinteger]:
    top, left = corner
    inside = pixels[:, top : top + shape[1], left : left + shape[2]]
    if inside.shape == tuple(shape):
        return np.ascontiguousarray(inside)
    # Chunks are whole, also where they reach past the edge of the field.
    padded = np.zeros(shape, dtype=pixels.dtype)
    padded[:, : inside.shape[1], : inside.shape[2]] = inside
    return padded


@lru_cache(maxsize=64)
def _metadata(shape: Shape, dtype: str, codec: Codec) -> bytes:
    """The array's `zarr.json`, as zarr-python writes it."""
    chunk = (shape[0], *(layout.inner_chunk_px(side) for side in shape[1:]))
    shard = tuple(-(-side // inner) * inner for side, inner in zip(shape, chunk, strict=True))
    shuffle = BloscShuffle.bitshuffle if codec == "zstd" else BloscShuffle.shuffle
    store = MemoryStore()
    zarr.create_array(
        store,
        shape=shape,
        dtype=dtype,
        chunks=chunk,
        shards=shard,
        compressors=BloscCodec(cname=codec, clevel=1, shuffle=shuffle),
        fill_value=0,
        dimension_names=("c", "y", "x"),
    )
    return store._store_dict["zarr.json"].to_bytes()


def open_array(place: Place, name: str, context: Any) -> Any:
    """Open a field's array for reading, as a tensorstore.

    Args:
        place: The plate.
        name: Folder of the array in it.
        context: From `new_context`, of this process.

    Raises:
        InputError: The array is missing or damaged.
    """
    if isinstance(place, LocalPlace) and not place.has(f"{name}/{layout.SHARD}"):
        # A zarr reader takes a missing shard for zeros, which must never pass for data.
        raise _unreadable(place, name, "its pixels are not there")
    spec = {
        "driver": "zarr3",
        "kvstore": place.kvstore(name),
        "fill_missing_data_reads": False,
    }
    try:
        return ts.open(spec, read=True, context=context).result()
    except ValueError as error:
        raise _unreadable(place, name, error) from error


def new_context(place: Place) -> Any:
    """Make a cache for one process; a tensorstore context does not survive a fork."""
    if place.location.startswith("memory:"):
        return shared_context()
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}, **NETWORK})


def read_pixels(view: Any, name: str) -> Any:
    """Read an array or a part of it.

    Args:
        view: From `open_array`.
        name: Whose pixels, for messages.

    Raises:
        InputError: The bytes are missing or damaged.
    """
    try:
        return view.read().result()
    except ValueError as error:
        found = f"{name} cannot be read: {str(error).splitlines()[0]}"
        raise InputError(found, hint=_HINT) from error


def _unreadable(place: Place, name: str, reason: object) -> InputError:
    found = f"{place.location}/{name} cannot be read: {str(reason).splitlines()[0]}"
    return InputError(found, hint=_HINT)
