"""How a zarr array says that it is laid out: `.zarray` of version 2, `zarr.json` of version 3."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellvim.errors import InputError
from cellvim.ingest.images.tiff import DamagedImageError

# Consolidated metadata of a plate of 1536 wells and 9 fields stay below.
MOST_JSON_BYTES = 64 << 20
MOST_AXES = 5
# What tensorstore decodes, and stops decoding when a chunk turns out larger than it should be; blosc does not stop,
# but says its size beforehand.
_COMPRESSORS = frozenset({"blosc", "zlib", "gzip", "bz2", "zstd"})
_CODECS = frozenset({"bytes", "transpose", "crc32c", "blosc", "gzip", "zstd"})
# Of version 2, such as ``<u2``, and of version 3, such as ``uint16``.
_NUMERIC = re.compile(r"[<>|=](u[1248]|i[1248]|f[248])")
_NAMED = re.compile(r"[a-z]{1,12}\d{0,3}")


@dataclass(frozen=True)
class ArrayLayout:
    """One array.

    Attributes:
        metadata: The file that says all this.
        is_v2: Version 2, else 3.
        shape: Pixels of each axis.
        inner: Shape of what is decoded at once: a chunk, or one of the chunks inside of a shard.
        shard: Shape of what lies in one file, where that is several chunks.
        dtype: For example ``uint16``; also types that ingest refuses.
        prefix: Before the numbers in the name of a chunk's file.
        separator: Between the numbers.
        is_blosc: Every chunk begins with a header of blosc.
        trailer_bytes: Of a checksum behind every chunk.
        index_at_start: Where a shard keeps its index.
        fill: What a zarr reader takes for missing chunks.
    """

    metadata: Path
    is_v2: bool
    shape: tuple[int, ...]
    inner: tuple[int, ...]
    dtype: str
    separator: str
    fill: str
    prefix: str = ""
    shard: tuple[int, ...] | None = None
    is_blosc: bool = False
    trailer_bytes: int = 0
    index_at_start: bool = False

    @property
    def is_readable(self) -> bool:
        return self.dtype in ("uint8", "uint16")

    @property
    def plane_bytes(self) -> int:
        return math.prod(self.shape[-2:]) * self._item_bytes

    @property
    def inner_bytes(self) -> int:
        """Decoded size of a chunk."""
        return math.prod(self.inner) * self._item_bytes

    @property
    def _item_bytes(self) -> int:
        """Of types that are not read, 8: it is a bound, no more."""
        return {"uint8": 1, "uint16": 2}.get(self.dtype, 8)

    def file_name(self, index: Sequence[int]) -> str:
        return self.prefix + self.separator.join(map(str, index))


def metadata_path(array: Path) -> Path:
    """The file that describes an array; version 3 wins where both are there, as for every zarr reader."""
    return next(
        (path for path in (array / "zarr.json", array / ".zarray") if path.is_file()), array / ".zarray"
    )


def layout_of(described: Path) -> ArrayLayout:
    """Read the metadata of an array.

    Args:
        described: See `metadata_path`.

    Raises:
        DamagedImageError: They are damaged, or say something that is not read here.
    """
    try:
        content = read_json_object(described)
        layout = (
            _version_2(described, content) if described.name == ".zarray" else _version_3(described, content)
        )
    except DamagedImageError:
        raise
    except InputError as error:
        raise DamagedImageError(error.found) from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = (
            f"its {described.name} lacks or misstates something: {type(error).__name__} {str(error)[:100]}"
        )
        raise DamagedImageError(reason) from error
    return layout


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object of a stranger.

    Raises:
        InputError: Not there, too large, or damaged; the message names the file alone.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_JSON_BYTES + 1)
        if len(content) > MOST_JSON_BYTES:
            reason = f"its {path.name} is larger than {MOST_JSON_BYTES:,} bytes"
            raise InputError(reason, hint="repair the plate's metadata")
        found = json.loads(content)
    except OSError as error:
        reason = f"its {path.name} cannot be read: {error.strerror}"
        raise InputError(reason, hint="repair the plate's metadata") from error
    except (ValueError, RecursionError) as error:
        reason = error.found if isinstance(error, InputError) else f"its {path.name} is damaged JSON"
        raise InputError(reason, hint="repair the plate's metadata") from error
    if not isinstance(found, dict):
        reason = f"its {path.name} holds no JSON object"
        raise InputError(reason, hint="repair the plate's metadata")
    return found


def _version_2(described: Path, content: Mapping[str, Any]) -> ArrayLayout:
    shape = _sides(content["shape"])
    compressor = content.get("compressor") or {"id": None}
    name = compressor["id"]
    _require(name is None or name in _COMPRESSORS, f"compressor {name}")
    _require(not content.get("filters"), "filter")
    separator = content.get("dimension_separator") or _separator_found(described)
    _require(separator in (".", "/"), f"dimension separator {separator}")
    return ArrayLayout(
        metadata=described,
        is_v2=True,
        shape=shape,
        inner=_sides(content["chunks"], axes=len(shape)),
        dtype=_dtype_name(content["dtype"]),
        separator=separator,
        fill=_fill(content.get("fill_value")),
        is_blosc=name == "blosc",
    )


def _separator_found(described: Path) -> str:
    """Writers of the first years nested their chunks without saying so."""
    return "/" if (described.parent / "0").is_dir() else "."


def _version_3(described: Path, content: Mapping[str, Any]) -> ArrayLayout:
    if content.get("node_type") != "array":
        reason = "is no zarr array"
        raise DamagedImageError(reason)
    shape = _sides(content["shape"])
    _require(content["chunk_grid"]["name"] == "regular", f"chunk grid {content['chunk_grid']['name']}")
    stored = _sides(content["chunk_grid"]["configuration"]["chunk_shape"], axes=len(shape))
    _require(not content.get("storage_transformers"), "storage transformer")
    codecs = list(content["codecs"])
    shard, inner, at_start = None, stored, False
    if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
        sharding = codecs[0]["configuration"]
        shard, inner, at_start = stored, *_sharding(sharding, stored)
        codecs = list(sharding["codecs"])
    is_blosc, trailer_bytes = _chain(codecs)
    prefix, separator = _chunk_names(content["chunk_key_encoding"])
    return ArrayLayout(
        metadata=described,
        is_v2=False,
        shape=shape,
        inner=inner,
        dtype=_dtype_name(content["data_type"]),
        prefix=prefix,
        separator=separator,
        fill=_fill(content.get("fill_value")),
        shard=shard,
        is_blosc=is_blosc,
        trailer_bytes=trailer_bytes,
        index_at_start=at_start,
    )


def _sharding(sharding: Mapping[str, Any], stored: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    inner = _sides(sharding["chunk_shape"], axes=len(stored))
    if any(side % part for side, part in zip(stored, inner, strict=True)):
        reason = f"its shards of {list(stored)} do not divide into chunks of {list(inner)}"
        raise DamagedImageError(reason)
    index_codecs = [codec["name"] for codec in sharding["index_codecs"]]
    _require(index_codecs == ["bytes", "crc32c"], "shard index of another kind")
    return inner, sharding.get("index_location", "end") == "start"


def _chain(codecs: Sequence[Mapping[str, Any]]) -> tuple[bool, int]:
    """Whether a chunk begins with a header of blosc, and how long the checksum behind it is."""
    names = [codec["name"] for codec in codecs]
    for name in names:
        _require(name in _CODECS, f"codec {name}")
    outer = list(names)
    trailer_bytes = 0
    while outer and outer[-1] == "crc32c":
        outer.pop()
        trailer_bytes += 4
    is_blosc = bool(outer) and outer[-1] == "blosc"
    # Wrapped up, it could hide any size.
    _require("blosc" not in outer[:-1], f"order of codecs {', '.join(names)}")
    return is_blosc, trailer_bytes


def _chunk_names(encoding: Mapping[str, Any]) -> tuple[str, str]:
    name = encoding["name"]
    _require(name in ("default", "v2"), f"chunk key encoding {name}")
    separator = (encoding.get("configuration") or {}).get("separator", "/" if name == "default" else ".")
    _require(separator in (".", "/"), f"separator {separator}")
    return f"c{separator}" if name == "default" else "", separator


def _sides(found: Any, *, axes: int | None = None) -> tuple[int, ...]:
    sides = tuple(found)
    if not all(isinstance(side, int) and not isinstance(side, bool) and 0 < side < 2**40 for side in sides):
        reason = f"claims a shape of {str(found)[:80]}"
        raise DamagedImageError(reason)
    if not 2 <= len(sides) <= MOST_AXES or (axes is not None and len(sides) != axes):
        reason = f"has {len(sides)} axes, expected {axes or f'2 to {MOST_AXES}'}"
        raise DamagedImageError(reason)
    return sides


def _dtype_name(found: Any) -> str:
    if not isinstance(found, str):
        return "a structured type"
    if (numeric := _NUMERIC.fullmatch(found)) is not None:
        return np.dtype(numeric[1]).name
    return found if _NAMED.fullmatch(found) else f"type {found[:20]!r}"


def _fill(found: Any) -> str:
    return "zeros" if found in (0, None) else str(found)[:20]


def _require(is_known: bool, what: str) -> None:  # noqa: FBT001 - a claim, named by what follows it
    if not is_known:
        reason = f"is stored with a {what[:80]}, which cellvim does not read"
        raise DamagedImageError(reason)
