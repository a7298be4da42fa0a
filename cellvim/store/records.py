"""What the companion remembers of each field: its sources, its checksums, and that it is whole."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cellvim.errors import InputError
from cellvim.provenance import sha256_of_json
from cellvim.store.naming import FieldKey
from cellvim.store.place import Place


@dataclass(frozen=True)
class SourceFile:
    """One image that went into a field.

    Attributes:
        name: Path relative to the source folder, as found.
        sha256: Of the file; of the plane's pixels where the file holds several planes.
        part: Which of several planes, such as ``3`` or ``0/2``; empty if the file is one plane.
    """

    name: str
    channel: str
    size_bytes: int
    sha256: str
    part: str = ""


@dataclass(frozen=True)
class StoredFile:
    """One file of the store."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class FieldRecord:
    """Done-record: what is stored for one field, and what it was made from.

    Attributes:
        token: Hash of the sources and of every setting that changes the pixels.
        is_valid: Per channel; False where the plane was filled with zeros.
        pixels_sha256: Per channel, of the plane's bytes, row by row, little-endian.
        histogram_sha256: Of the field's histogram file.
        quality: Per channel, measures of the plane by name, such as ``focus_slope``; empty where it was filled.
        files: Stored files, named relative to the field's group.
    """

    well: str
    site: int
    token: str
    height_px: int
    width_px: int
    is_valid: tuple[bool, ...]
    pixels_sha256: tuple[str, ...]
    histogram_sha256: str
    quality: tuple[Mapping[str, float], ...]
    files: tuple[StoredFile, ...]
    sources: tuple[SourceFile, ...]

    @property
    def key(self) -> FieldKey:
        return FieldKey(self.well, self.site)

    @classmethod
    def from_bytes(cls, stored: bytes) -> "FieldRecord":
        """Read what `to_bytes` made.

        Raises:
            ValueError: It is damaged, be it by one bit.
        """
        content = json.loads(stored)
        try:
            if content.pop("sha256") != sha256_of_json(content):
                raise ValueError(_ALTERED)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(_ALTERED) from error
        content["files"] = tuple(StoredFile(**file) for file in content["files"])
        content["sources"] = tuple(SourceFile(**source) for source in content["sources"])
        for name in ("is_valid", "pixels_sha256", "quality"):
            content[name] = tuple(content[name])
        return cls(**content)

    def to_bytes(self) -> bytes:
        # Not `asdict`, which copies every text it meets.
        content = vars(self) | {
            "files": list(map(vars, self.files)),
            "sources": list(map(vars, self.sources)),
        }
        # On one line: indentation would take thirty times as long, for a file that is only read by us.
        stored = json.dumps(content | {"sha256": sha256_of_json(content)}, sort_keys=True, ensure_ascii=False)
        return stored.encode()


_ALTERED = "the record is not what was written"


def plane_sha256(plane: NDArray[np.unsignedinteger]) -> str:
    little = np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<"))
    return hashlib.sha256(little.data).hexdigest()


def manifest_of(records: Sequence[FieldRecord]) -> pl.DataFrame:
    """One row per source file: which field and channel it went into, its size and its sha256."""
    rows = [
        {"Metadata_Well": record.well, "Metadata_Site": record.site, **asdict(source)}
        for record in records
        for source in record.sources
    ]
    schema = {
        "Metadata_Well": pl.String,
        "Metadata_Site": pl.Int64,
        "name": pl.String,
        "channel": pl.String,
        "size_bytes": pl.Int64,
        "sha256": pl.String,
        "part": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)


def manifest_sha256(manifest: pl.DataFrame) -> str:
    """Hash of the images behind a plate: the name of every file and the SHA-256 of what was read of it."""
    rows = manifest.select("name", "part", "sha256").unique().sort("name", "part", "sha256").rows()
    return sha256_of_json([list(row) for row in rows])


def load_json(place: Place, name: str) -> Any:
    """Read a JSON file of a plate or of its companion.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        return json.loads(place.read(name))
    except (OSError, ValueError) as error:
        raise damaged(place, name, error) from error


def load_table(place: Place, name: str) -> pl.DataFrame:
    """Read a Parquet file of a companion.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        return pl.read_parquet(io.BytesIO(place.read(name)))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise damaged(place, name, error) from error


def table_bytes(table: pl.DataFrame) -> bytes:
    """Spell a table as Parquet with zstd."""
    buffer = io.BytesIO()
    table.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def damaged(place: Place, name: str, error: Exception) -> InputError:
    """Say that a file of the companion cannot be used, and what helps."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    found = f"{place.location}/{name} cannot be read: {(reason.splitlines() or ['no reason given'])[0]}"
    return InputError(found, hint="keep PLATE.cellvim beside PLATE.ome.zarr; if it is damaged, ingest again")
