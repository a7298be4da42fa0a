"""Write one plate, field by field, so that a kill at any moment leaves only whole fields."""

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cellvim.atomic import flush_to_disk, json_bytes, remove_leftovers, write_bytes, write_json, write_parquet
from cellvim.errors import OutputExistsError
from cellvim.provenance import sha256_of_file
from cellvim.store import layout
from cellvim.store.arrays import Codec, write_array
from cellvim.store.checksums import write_checksums
from cellvim.store.intensity import FIELDS_FILE, INTENSITY_FILE, histograms_of, pack_histograms
from cellvim.store.naming import FieldKey
from cellvim.store.records import (
    FieldRecord,
    SourceFile,
    StoredFile,
    load_json,
    manifest_of,
    plane_sha256,
)
from cellvim.store.statistics import measure_plate

logger = logging.getLogger(__name__)

PLATE_RECORD = "plate.json"
SKIPPED_FILE = "skipped.json"
MANIFEST_FILE = "manifest.parquet"
PLATEMAP_FILE = "platemap.parquet"


@dataclass(frozen=True)
class PlateWriter:
    """Writer of one PLATE.ome.zarr and its PLATE.cellvim. Threads may write different fields at once.

    Attributes:
        out: Folder that receives both.
        name: Plate name, safe as a file name.
        channels: Stain names in the order of the arrays.
        dtype: Of the pixels, uint8 or uint16.
        pixel_size_um: Side of a pixel; None if unknown.
        codec: Blosc codec.
        settings: Everything else that changes the pixels, JSON-able, for example the z projection.
    """

    out: Path
    name: str
    channels: tuple[str, ...]
    dtype: np.dtype[np.unsignedinteger]
    pixel_size_um: float | None = None
    codec: Codec = "zstd"
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return layout.plate_path(self.out, self.name)

    @property
    def companion(self) -> Path:
        return layout.companion_of(self.path)

    @property
    def is_finished(self) -> bool:
        return (self.path / "zarr.json").is_file()

    def plate_record(self) -> dict[str, Any]:
        """Everything that changes the stored bytes of any field, JSON-able."""
        return {
            "channels": list(self.channels),
            "codec": self.codec,
            "dtype": self.dtype.name,
            "name": self.name,
            "pixel_size_um": self.pixel_size_um,
            "settings": dict(self.settings),
        }

    def begin(self, *, overwrite: bool = False) -> None:
        """Claim the output: continue what the same settings began, or start.

        Raises:
            OutputExistsError: The plate is there and was made with other settings, or not by cellvim.
            InputError: The record of its settings is damaged.
        """
        if overwrite:
            self._delete_everything()
        record = self.companion / PLATE_RECORD
        if record.is_file():
            self._refuse_other_settings(load_json(record))
        elif self.path.exists():
            raise OutputExistsError(self.path, why="was not written by cellvim ingest")
        self._sweep()
        write_json(record, self.plate_record())
        self.path.mkdir(parents=True, exist_ok=True)

    def record(self, key: FieldKey) -> FieldRecord | None:
        """Done-record of a field; None if there is none, or none that is what was written."""
        try:
            return FieldRecord.load(layout.record_path(self.companion, key))
        except (FileNotFoundError, ValueError, TypeError, LookupError):
            return None

    def is_done(self, key: FieldKey, token: str) -> bool:
        """Whether the field is stored whole, from the same sources and settings.

        Pixels are not hashed, as `verify` finds changes in them; the histogram is, as statistics come from it.
        """
        record = self.record(key)
        histogram = layout.histogram_path(self.companion, key)
        if record is None or not histogram.is_file() or sha256_of_file(histogram) != record.histogram_sha256:
            return False
        group = self.path / key.group
        return record.token == token and all(
            (group / file.name).is_file() and (group / file.name).stat().st_size == file.size_bytes
            for file in record.files
        )

    def write_field(
        self,
        key: FieldKey,
        pixels: NDArray[np.unsignedinteger],
        *,
        token: str,
        is_valid: Sequence[bool] | None = None,
        sources: Sequence[SourceFile] = (),
        quality: Sequence[Mapping[str, float]] = (),
    ) -> int:
        """Store one field: pixels, histograms, and last its done-record.

        Args:
            key: Which field.
            pixels: Axes (c, y, x), of the plate's dtype.
            token: See `FieldRecord.token`.
            is_valid: Per channel; all True if None.
            sources: Images behind the pixels.
            quality: Measures per channel; none if empty.

        Returns:
            Bytes that the pixels take on disk.
        """
        assert pixels.dtype == self.dtype, "preflight lets only one dtype through"  # noqa: S101
        assert len(pixels) == len(self.channels), "one plane per channel"  # noqa: S101
        self.discard(key)
        files = self._write_pixels(key, pixels)
        histogram = pack_histograms(histograms_of(pixels))
        write_bytes(layout.histogram_path(self.companion, key), histogram)
        record = FieldRecord(
            well=key.well,
            site=key.site,
            token=token,
            height_px=pixels.shape[1],
            width_px=pixels.shape[2],
            is_valid=tuple(is_valid) if is_valid is not None else (True,) * len(pixels),
            pixels_sha256=tuple(plane_sha256(plane) for plane in pixels),
            histogram_sha256=hashlib.sha256(histogram).hexdigest(),
            quality=tuple(quality) or ({},) * len(pixels),
            files=files,
            sources=tuple(sources),
        )
        record.save(layout.record_path(self.companion, key))
        return sum(file.size_bytes for file in files)

    def discard(self, key: FieldKey) -> None:
        """Remove a field, its record first, so that no record ever speaks of missing pixels."""
        layout.record_path(self.companion, key).unlink(missing_ok=True)
        layout.histogram_path(self.companion, key).unlink(missing_ok=True)
        shutil.rmtree(self.path / key.group, ignore_errors=True)

    def finish(
        self,
        fields: Sequence[FieldKey],
        *,
        skipped: Mapping[str, str] | None = None,
        platemap: pl.DataFrame | None = None,
    ) -> None:
        """Turn written fields into a plate that opens: statistics, metadata, and last the root `zarr.json`.

        Args:
            fields: Every field of the plate; anything else on disk is removed.
            skipped: Well (``B03``) or field (``B03/1``) to the reason why it is not in the plate.
            platemap: One row per well; if None, the plate has none, whatever an earlier run was given.

        Raises:
            OutputExistsError: The plate was finished before, with more fields.
        """
        fields = sorted(fields)
        self._discard_others(set(fields))
        records = [FieldRecord.load(layout.record_path(self.companion, key)) for key in fields]
        write_parquet(self.companion / MANIFEST_FILE, manifest_of(records))
        write_json(self.companion / SKIPPED_FILE, dict(skipped or {}))
        self._write_platemap(platemap)
        percentiles, table = measure_plate(self.companion, records, self.channels)
        write_parquet(self.companion / FIELDS_FILE, table)
        intensity = {"channels": list(self.channels), "percentiles": percentiles}
        write_json(self.companion / INTENSITY_FILE, intensity)
        self._write_metadata(records, percentiles)

    def _write_platemap(self, platemap: pl.DataFrame | None) -> None:
        path = self.companion / PLATEMAP_FILE
        if platemap is not None:
            write_parquet(path, platemap)
        elif path.exists():
            # Kept, it would get a new checksum, be it damaged or not.
            logger.warning("%s: the plate map of an earlier run is removed, as none was given", self.name)
            path.unlink()

    def _refuse_other_settings(self, found: Any) -> None:
        wanted = self.plate_record()
        if not isinstance(found, dict):
            raise OutputExistsError(self.path, why="has a damaged record of its settings")
        for name in sorted(wanted):
            if found.get(name) != wanted[name]:
                why = f"was made with {name} {found.get(name)}, not {wanted[name]}"
                raise OutputExistsError(self.path, why=why)

    def _delete_everything(self) -> None:
        (self.path / "zarr.json").unlink(missing_ok=True)
        if self.companion.is_dir():
            for entry in self.companion.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != "lock":
                    entry.unlink()
        if self.path.exists():
            shutil.rmtree(self.path)

    def _sweep(self) -> None:
        """Remove what a killed writer left."""
        shutil.rmtree(self.companion / "tmp", ignore_errors=True)
        for folder in (self.companion, self.companion / "fields", *self.path.rglob("*/"), self.path):
            if folder.is_dir():
                remove_leftovers(folder)

    def _write_pixels(self, key: FieldKey, pixels: NDArray[np.unsignedinteger]) -> tuple[StoredFile, ...]:
        temporary = self.companion / "tmp" / f"{key.well}-{key.site}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            write_array(temporary / "0", pixels, codec=self.codec)
            written = sorted(path for path in temporary.rglob("*") if path.is_file())
            files = tuple(
                StoredFile(path.relative_to(temporary).as_posix(), path.stat().st_size, sha256_of_file(path))
                for path in written
            )
            for path in (*temporary.rglob("*"), temporary):
                flush_to_disk(path)
            final = self.path / key.group
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(final)
            flush_to_disk(final.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return files

    def _discard_others(self, fields: set[FieldKey]) -> None:
        """Remove fields that an earlier, unfinished run wrote and this one does not want."""
        names = (layout.RECORD_NAME.fullmatch(path.name) for path in (self.companion / "fields").iterdir())
        groups = (path.relative_to(self.path).parts for path in self.path.glob("*/*/*/"))
        found = {FieldKey(name[1], int(name[2])) for name in names if name}
        found |= {FieldKey(row + column, int(site)) for row, column, site in groups if site.isdigit()}
        for key in sorted(found - fields):
            if self.is_finished:
                raise OutputExistsError(self.path, why=f"was made from more files (field {key})")
            self.discard(key)

    def _write_metadata(
        self, records: Sequence[FieldRecord], percentiles: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Write every group's `zarr.json`, the root's last, and before it the checksums of all files."""
        fields = [record.key for record in records]
        windows = [(values["1"], max(values["99.9"], values["1"] + 1)) for values in percentiles.values()]
        images = {
            key.group: layout.image_metadata(
                str(key),
                self.channels,
                pixel_size_um=self.pixel_size_um,
                windows=windows,
                largest=int(np.iinfo(self.dtype).max),
            )
            for key in fields
        }
        groups = layout.plate_groups(self.name, fields) | images
        known = {
            f"{record.key.group}/{file.name}": file.sha256 for record in records for file in record.files
        }
        contents = {
            f"{path}/zarr.json".lstrip("/"): json_bytes(layout.group(groups[path])) for path in groups
        }
        known |= {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        write_checksums(self.path, known)
        for name in sorted(contents, key=lambda name: name == "zarr.json"):
            write_bytes(self.path / name, contents[name])
