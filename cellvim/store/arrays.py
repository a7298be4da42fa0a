"""The zarr array of one field: one shard, blosc, the same bytes for the same pixels."""

import json
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import tensorstore as ts
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle
from zarr.storage import MemoryStore

from cellvim.errors import InputError
from cellvim.store import layout
from cellvim.store.place import LocalPlace, Place
from cellvim.store.place import context as shared_context

Codec = Literal["zstd", "lz4"]

# Decoded shard indices and chunks; small, since random crops rarely come back to the same chunk.
CACHE_BYTES = 32 << 20

Shape = tuple[int, int, int]


def encode_array(pixels: NDArray[np.unsignedinteger], *, codec: Codec) -> dict[str, bytes]:
    """Encode a field, axes (c, y, x), as the files of a zarr v3 array: name to content.

    Writing through zarr-python took 1.4 times as long; it says what the array is, tensorstore encodes it.
    """
    channels, height, width = pixels.shape
    content = _metadata((channels, height, width), pixels.dtype.name, codec)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "memory"},
        "metadata": {
            key: value for key, value in json.loads(content).items() if key not in _NOT_FOR_TENSORSTORE
        },
        "create": True,
        # A missing shard then always means damage, never a field of zeros.
        "store_data_equal_to_fill_value": True,
    }
    array = ts.open(spec, context=ts.Context({"data_copy_concurrency": {"limit": 1}})).result()
    array[...] = pixels
    store: Any = array.kvstore
    return {"zarr.json": content, layout.SHARD: bytes(store.read(layout.SHARD).result().value)}


# Allowed by the specification, unknown to tensorstore.
_NOT_FOR_TENSORSTORE = ("attributes", "storage_transformers")


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
    return ts.Context({"cache_pool": {"total_bytes_limit": CACHE_BYTES}})


def _unreadable(place: Place, name: str, reason: object) -> InputError:
    found = f"{place.location}/{name} cannot be read: {str(reason).splitlines()[0]}"
    return InputError(found, hint="`cellvim verify` lists all damage; ingest again")
