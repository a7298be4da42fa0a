"""Read plates: what is in them, and their pixels."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cellvim.errors import InputError, NotFoundError
from cellvim.store import layout
from cellvim.store.arrays import new_context, open_array, read_pixels
from cellvim.store.illumination import ILLUMINATION_FILE, FlatField, flatten, load_flat, reads_corrected
from cellvim.store.intensity import FIELDS_FILE, Intensity
from cellvim.store.naming import FieldKey, check_field, check_plate_name, parse_well, well_position
from cellvim.store.place import LocalPlace, Place, open_place, read_all
from cellvim.store.records import FieldRecord, load_json, load_table
from cellvim.store.writer import PLATE_RECORD, PLATEMAP_FILE, SKIPPED_FILE

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

HINT = "make plates with: cellvim ingest IMAGES --out DIR"


class PlateReader:
    """One plate on disk. Opening reads two small files; arrays open when they are first read.

    A reader may be pickled: each process opens its own arrays. Start worker processes by spawn, as tensorstore
    aborts a process that was forked after a first read.

    Attributes:
        place: PLATE.ome.zarr.
        name: Plate name.
        companion: PLATE.cellvim.
        fields: Fields of the plate, by row, column and site.

    Raises:
        NotFoundError: No plate there.
        InputError: A plate, but unfinished or without its PLATE.cellvim.
    """

    def __init__(self, location: Path | str) -> None:
        self.place = open_place(location)
        refuse_absent(self.place)
        self.companion = layout.companion_of(self.place)
        self.name = check_plate_name(self._plate_metadata().get("name"), self.place.location)
        self._table = self._read_field_table()
        keys = self._table.select("Metadata_Well", "Metadata_Site").unique(maintain_order=True)
        self.fields = tuple(check_field(*key, where=self.companion.location) for key in keys.iter_rows())
        self._arrays: dict[FieldKey, Any] = {}
        self._context: Any = None
        self._process: int | None = None

    def __repr__(self) -> str:
        return f"PlateReader({self.place.location!r})"

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_flat"}
        return {**kept, "_arrays": {}, "_context": None, "_process": None}

    @property
    def path(self) -> Path:
        """PLATE.ome.zarr on this machine's disk."""
        assert isinstance(self.place, LocalPlace), "only asked of plates on a disk"  # noqa: S101
        return self.place.path

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Stain names, in the order of the arrays."""
        return tuple(channel["label"] for channel in self._image_metadata["omero"]["channels"])

    @cached_property
    def pixel_size_um(self) -> float | None:
        """Side of a pixel in micrometres; None if the source did not say."""
        multiscale = self._image_metadata["multiscales"][0]
        if multiscale["axes"][-1].get("unit") != "micrometer":
            return None
        return float(multiscale["datasets"][0]["coordinateTransformations"][0]["scale"][-1])

    @cached_property
    def wells(self) -> tuple[str, ...]:
        return tuple(sorted({field.well for field in self.fields}, key=well_position))

    @cached_property
    def skipped(self) -> dict[str, str]:
        """Wells that the source named and the plate lacks, each with the reason."""
        return absent_wells(self.skipped_units, self.wells)

    @cached_property
    def skipped_units(self) -> dict[str, str]:
        """Wells (``B03``) and fields (``B03/1``) that the plate lacks, each with the reason."""
        return dict(load_json(self.companion, SKIPPED_FILE)) if self.companion.has(SKIPPED_FILE) else {}

    @cached_property
    def intensity(self) -> Intensity:
        return Intensity.load(self.companion)

    @cached_property
    def platemap(self) -> pl.DataFrame | None:
        """One row per well of the plate map given at ingest; None if there was none."""
        return load_table(self.companion, PLATEMAP_FILE) if self.companion.has(PLATEMAP_FILE) else None

    @cached_property
    def pixels_fingerprint(self) -> str:
        """Hash of what training learns from: name, channels, and each field's size, validity and checksums."""
        parts = [self.name, *self.channels, self._table.write_csv()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that a later stage may use: the pixels, the plate map, and what was skipped."""
        parts = [self.pixels_fingerprint, json.dumps(self.skipped_units, sort_keys=True)]
        if self.platemap is not None:
            parts.append(self.platemap.write_csv())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def shape(self, field: FieldKey) -> tuple[int, int]:
        """Height and width of a field, in pixels."""
        height, width, _ = self._frame(field)
        return height, width

    def is_valid(self, field: FieldKey) -> NDArray[np.bool_]:
        """Per channel: False where the plane was missing or damaged and holds zeros instead."""
        return self._frame(field)[2]

    def read_field(self, field: FieldKey, *, raw: bool = False) -> Pixels:
        """Read a whole field, axes (c, y, x).

        Args:
            field: Which.
            raw: As stored, also where the illumination is to be corrected on reading.

        Raises:
            InputError: Its bytes on disk are missing or damaged.
        """
        pixels = self._read(field, self._array(field))
        return pixels if raw or self._flat is None else flatten(pixels, self._flat)

    def read_crop(self, field: FieldKey, top: int, left: int, height: int, width: int) -> Pixels:
        """Read a window of what `read_field` reads. The window must lie inside the field.

        Raises:
            InputError: The bytes on disk are missing or damaged.
        """
        window = slice(None), slice(top, top + height), slice(left, left + width)
        pixels = self._read(field, self._array(field)[window])
        return pixels if self._flat is None else flatten(pixels, self._flat[window])

    @property
    def size_bytes(self) -> int:
        """Compressed size of all pixels."""
        records = read_all(self.companion, [layout.record_name(field) for field in self.fields])
        return sum(file.size_bytes for record in records for file in FieldRecord.from_bytes(record).files)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels: uint8 or uint16."""
        stored: np.dtype[Any] = self._array(self.fields[0]).dtype.numpy_dtype
        return stored

    def fields_in_metadata(self) -> list[FieldKey]:
        """Fields that the OME metadata of the plate and its wells name, which other software goes by."""
        fields = []
        for well in self._plate_metadata()["wells"]:
            images = self._ome(well["path"])["well"]["images"]
            name = parse_well(well["path"].replace("/", ""))
            fields += [FieldKey(name, int(image["path"])) for image in images]
        return fields

    def _read(self, field: FieldKey, view: Any) -> Pixels:
        pixels: Pixels = read_pixels(view, f"plate {self.name} field {field}")
        return pixels

    @cached_property
    def _flat(self) -> FlatField | None:
        """Flat-field to divide by on reading; None if there is none, or if it is in the stored pixels already."""
        record = load_json(self.companion, PLATE_RECORD)
        if not reads_corrected(record):
            return None
        flat = load_flat(self.companion, str(record["illumination"].get("sha256")))
        if flat.shape != (len(self.channels), *self.shape(self.fields[0])):
            found = f"{self.companion.location}/{ILLUMINATION_FILE} does not fit the plate's images"
            raise InputError(found, hint="`cellvim verify` lists all damage; ingest again")
        return flat

    @cached_property
    def _image_metadata(self) -> dict[str, Any]:
        return self._ome(self.fields[0].group)

    @cached_property
    def _frames(self) -> dict[FieldKey, tuple[int, int, NDArray[np.bool_]]]:
        """Of each field its height, its width, and which channels are valid."""
        size = pl.col("height_px", "width_px").first()
        fields = self._table.group_by("Metadata_Well", "Metadata_Site", maintain_order=True)
        return {
            FieldKey(well, site): (height, width, np.array(valid))
            for well, site, height, width, valid in fields.agg(size, "is_valid").iter_rows()
        }

    def _plate_metadata(self) -> dict[str, Any]:
        if not self.place.has("zarr.json"):
            found = f"{self.place.location} is not finished: it has no zarr.json"
            raise InputError(found, hint="run the same `cellvim ingest` again, it resumes")
        return dict(self._ome("")["plate"])

    def _ome(self, group: str) -> dict[str, Any]:
        try:
            return dict(load_json(self.place, f"{group}/zarr.json".lstrip("/"))["attributes"]["ome"])
        except (LookupError, TypeError) as error:
            found = f"{self.place.location}/{group} is not a group of an OME-Zarr 0.5 plate"
            raise InputError(found, hint=HINT) from error

    def _read_field_table(self) -> pl.DataFrame:
        if not self.companion.has(FIELDS_FILE):
            found = f"{self.place.location} lacks {FIELDS_FILE} in {self.companion.name} beside it"
            raise InputError(found, hint=f"keep {self.companion.name} beside the plate, or ingest again")
        return load_table(self.companion, FIELDS_FILE)

    def _frame(self, field: FieldKey) -> tuple[int, int, NDArray[np.bool_]]:
        if field not in self._frames:
            found = f"plate {self.name} has no field {field}"
            raise InputError(found, hint="`cellvim info` lists what is there")
        return self._frames[field]

    def _array(self, field: FieldKey) -> Any:
        if self._process != os.getpid():
            self._arrays, self._context, self._process = {}, new_context(self.place), os.getpid()
        if field not in self._arrays:
            self._arrays[field] = open_array(self.place, f"{field.group}/0", self._context)
        return self._arrays[field]


def refuse_absent(place: Place) -> None:
    """Tell an address where nothing lies from a plate that is not finished.

    Raises:
        NotFoundError: Nothing of a plate is there.
    """
    if isinstance(place, LocalPlace):
        is_there = place.path.is_dir()
    else:
        is_there = place.has("zarr.json") or bool(place.names() or layout.companion_of(place).names())
    if not is_there:
        raise NotFoundError(place.location, expected="OME-Zarr plate", hint=HINT)


def absent_wells(skipped: Mapping[str, str], present: Collection[str]) -> dict[str, str]:
    """Wells that are not there, each with the first reason of itself or of its fields.

    Args:
        skipped: Well (``B03``) or field (``B03/1``) to the reason.
        present: Wells that are there.
    """
    reasons: dict[str, str] = {}
    for unit, reason in skipped.items():
        well = unit.partition("/")[0]
        if well not in present:
            reasons.setdefault(well, reason)
    return reasons


def find_plates(locations: Iterable[Path | str]) -> list[Path | str]:
    """List plates: those named, and those in the folders named; paths and URLs.

    Each is there once, however many ways lead to it, and by the first of them. They are sorted by the name of
    the plate's folder, then by its full path, so that no spelling of a path changes the order.

    Raises:
        NotFoundError: A path holds none.
    """
    found: dict[tuple[str, str], Path | str] = {}
    for location in locations:
        place = open_place(location)
        plates = _plates_at(place)
        if not plates:
            raise NotFoundError(location, expected="OME-Zarr plate", hint=HINT)
        for plate in plates:
            found.setdefault(_identity(plate), plate.address)
    return [found[real] for real in sorted(found)]


def _plates_at(place: Place) -> Sequence[Place]:
    if isinstance(place, LocalPlace):
        if place.name.endswith(layout.PLATE_SUFFIX):
            return [place] if place.path.is_dir() else []
        return [
            LocalPlace(path) for path in sorted(place.path.glob(f"*{layout.PLATE_SUFFIX}")) if path.is_dir()
        ]
    if place.name.endswith(layout.PLATE_SUFFIX):
        return [place]
    names = {name.partition("/")[0] for name in place.names()}
    return [place.at(name) for name in sorted(names) if name.endswith(layout.PLATE_SUFFIX)]


def _identity(plate: Place) -> tuple[str, str]:
    real = str(plate.path.resolve()) if isinstance(plate, LocalPlace) else plate.location
    return plate.name, real
