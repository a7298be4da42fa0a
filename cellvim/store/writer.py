"""Write one plate, field by field, so that a kill at any moment leaves only whole fields."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cellvim.atomic import json_bytes
from cellvim.errors import OutputExistsError
from cellvim.provenance import sha256_of
from cellvim.store import layout
from cellvim.store.arrays import Codec, encode_array
from cellvim.store.checksums import write_checksums
from cellvim.store.illumination import ILLUMINATION_FILE, Illumination
from cellvim.store.intensity import FIELDS_FILE, INTENSITY_FILE, histograms_of, pack_histograms
from cellvim.store.naming import FieldKey
from cellvim.store.place import LocalPlace, Place, open_place, read_all, write_all
from cellvim.store.quality import PAGE_FILE, QUALITY_FILE
from cellvim.store.records import (
    FieldRecord,
    SourceFile,
    StoredFile,
    load_json,
    manifest_of,
    plane_sha256,
    table_bytes,
)
from cellvim.store.statistics import PlateStatistics, measure_plate

logger = logging.getLogger(__name__)

PLATE_RECORD = "plate.json"
SKIPPED_FILE = "skipped.json"
MANIFEST_FILE = "manifest.parquet"
PLATEMAP_FILE = "platemap.parquet"


@dataclass(frozen=True)
class PlateWriter:
    """Writer of one PLATE.ome.zarr and its PLATE.cellvim. Threads may write different fields at once.

    Attributes:
        out: Folder that receives both: a path, or the URL of an object store.
        name: Plate name, safe as a file name.
        channels: Stain names in the order of the arrays.
        dtype: Of the pixels, uint8 or uint16.
        pixel_size_um: Side of a pixel; None if unknown.
        codec: Blosc codec.
        settings: Everything else that changes the pixels, JSON-able, for example the z projection.
        illumination: To be corrected; None if it is not.
    """

    out: Path | str
    name: str
    channels: tuple[str, ...]
    dtype: np.dtype[np.unsignedinteger]
    pixel_size_um: float | None = None
    codec: Codec = "zstd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    illumination: Illumination | None = None

    @cached_property
    def place(self) -> Place:
        """PLATE.ome.zarr."""
        return open_place(self.out).at(f"{self.name}{layout.PLATE_SUFFIX}")

    @cached_property
    def companion(self) -> Place:
        """PLATE.cellvim."""
        return layout.companion_of(self.place)

    @property
    def path(self) -> Path:
        """PLATE.ome.zarr on this machine's disk."""
        assert isinstance(self.place, LocalPlace), "only asked where the output is a folder"  # noqa: S101
        return self.place.path

    @property
    def is_finished(self) -> bool:
        return self.place.has("zarr.json")

    def plate_record(self) -> dict[str, Any]:
        """Everything that changes the stored bytes of any field, JSON-able."""
        return {
            "channels": list(self.channels),
            "codec": self.codec,
            "dtype": self.dtype.name,
            "illumination": self.illumination and self.illumination.record,
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
        if self.companion.has(PLATE_RECORD):
            self._refuse_other_settings(load_json(self.companion, PLATE_RECORD))
        elif self.place.names():
            raise OutputExistsError(self.place.location, why="was not written by cellvim ingest")
        self.place.sweep()
        self.companion.sweep()
        self.companion.write(PLATE_RECORD, json_bytes(self.plate_record()))
        if self.illumination:
            self.companion.write(ILLUMINATION_FILE, self.illumination.content)

    def record(self, key: FieldKey) -> FieldRecord | None:
        """Done-record of a field; None if there is none, or none that is what was written."""
        try:
            return FieldRecord.from_bytes(self.companion.read(layout.record_name(key)))
        except (FileNotFoundError, ValueError, TypeError, LookupError):
            return None

    def is_done(self, key: FieldKey, token: str) -> bool:
        """Whether the field is stored whole, from the same sources and settings.

        Pixels are not hashed, as `verify` finds changes in them; the histogram is, as statistics come from it.
        """
        record = self.record(key)
        if record is None or record.token != token:
            return False
        try:
            histogram = self.companion.read(layout.histogram_name(key))
        except FileNotFoundError:
            return False
        return sha256_of(histogram) == record.histogram_sha256 and all(
            self.place.has(f"{key.group}/{file.name}", file.size_bytes) for file in record.files
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
        pixels, seen = self.illumination.apply(pixels) if self.illumination else (pixels, pixels)
        files = self._write_pixels(key, pixels)
        histogram = pack_histograms(histograms_of(seen))
        self.companion.write(layout.histogram_name(key), histogram)
        record = FieldRecord(
            well=key.well,
            site=key.site,
            token=token,
            height_px=pixels.shape[1],
            width_px=pixels.shape[2],
            is_valid=tuple(is_valid) if is_valid is not None else (True,) * len(pixels),
            pixels_sha256=tuple(plane_sha256(plane) for plane in pixels),
            histogram_sha256=sha256_of(histogram),
            quality=tuple(quality) or ({},) * len(pixels),
            files=files,
            sources=tuple(sources),
        )
        self.companion.write(layout.record_name(key), record.to_bytes())
        return sum(file.size_bytes for file in files)

    def discard(self, key: FieldKey) -> None:
        """Remove a field, its record first, so that no record ever speaks of missing pixels."""
        self.companion.delete(layout.record_name(key))
        self.companion.delete(layout.histogram_name(key))
        self.place.delete(f"{key.group}/")

    def finish(
        self,
        fields: Sequence[FieldKey],
        *,
        skipped: Mapping[str, str] | None = None,
        platemap: pl.DataFrame | None = None,
        render: Callable[[PlateStatistics], str] | None = None,
    ) -> None:
        """Turn written fields into a plate that opens: statistics, metadata, and last the root `zarr.json`.

        Args:
            fields: Every field of the plate; anything else on disk is removed.
            skipped: Well (``B03``) or field (``B03/1``) to the reason why it is not in the plate.
            platemap: One row per well; if None, the plate has none, whatever an earlier run was given.
            render: Makes the plate's page from what its pixels say.

        Raises:
            OutputExistsError: The plate was finished before, with more fields.
        """
        fields = sorted(fields)
        self._discard_others(set(fields))
        names = [layout.record_name(key) for key in fields]
        records = [FieldRecord.from_bytes(stored) for stored in read_all(self.companion, names)]
        self.companion.write(MANIFEST_FILE, table_bytes(manifest_of(records)))
        self.companion.write(SKIPPED_FILE, json_bytes(dict(skipped or {})))
        self._write_platemap(platemap)
        statistics = measure_plate(self.companion, records, self.channels)
        self.companion.write(FIELDS_FILE, table_bytes(statistics.fields))
        self.companion.write(QUALITY_FILE, table_bytes(statistics.quality))
        intensity = {"channels": list(self.channels), "percentiles": statistics.percentiles}
        self.companion.write(INTENSITY_FILE, json_bytes(intensity))
        if render is not None:
            self.companion.write(PAGE_FILE, render(statistics).encode())
        self._write_metadata(records, statistics.percentiles)

    def _write_platemap(self, platemap: pl.DataFrame | None) -> None:
        if platemap is not None:
            self.companion.write(PLATEMAP_FILE, table_bytes(platemap))
        elif self.companion.has(PLATEMAP_FILE):
            # Kept, it would get a new checksum, be it damaged or not.
            logger.warning("%s: the plate map of an earlier run is removed, as none was given", self.name)
            self.companion.delete(PLATEMAP_FILE)

    def _refuse_other_settings(self, found: Any) -> None:
        wanted = self.plate_record()
        if not isinstance(found, dict):
            raise OutputExistsError(self.place.location, why="has a damaged record of its settings")
        for name in sorted(wanted):
            if found.get(name) != wanted[name]:
                why = f"was made with {name} {found.get(name)}, not {wanted[name]}"
                raise OutputExistsError(self.place.location, why=why)

    def _delete_everything(self) -> None:
        """Remove both, the plate's root first: what is half gone must not open. The lock stays."""
        self.place.delete("zarr.json")
        for name in {name.partition("/")[0] for name in self.companion.names()} - {"lock"}:
            self.companion.delete(f"{name}/")
            self.companion.delete(name)
        self.place.delete("")

    def _write_pixels(self, key: FieldKey, pixels: NDArray[np.unsignedinteger]) -> tuple[StoredFile, ...]:
        stored = []
        for name, content in encode_array(pixels, codec=self.codec).items():
            self.place.write(f"{key.group}/0/{name}", content)
            stored.append(StoredFile(f"0/{name}", len(content), sha256_of(content)))
        return tuple(sorted(stored, key=lambda file: file.name))

    def _discard_others(self, fields: set[FieldKey]) -> None:
        """Remove fields that an earlier, unfinished run wrote and this one does not want."""
        records = map(layout.RECORD_FILE.fullmatch, self.companion.names("fields/"))
        names = self.place.names()
        groups = (layout.FIELD_FILE.match(name) for name in names)
        found = {FieldKey(record[1], int(record[2])) for record in records if record}
        found |= {FieldKey(group[1] + group[2], int(group[3])) for group in groups if group}
        others = sorted(found - fields)
        if others and self.is_finished:
            raise OutputExistsError(self.place.location, why=f"was made from more files (field {others[0]})")
        for key in others:
            self.discard(key)
        if not self.is_finished:
            # Of wells that an earlier run had got as far as to describe.
            kept = {f"{group}/zarr.json" for group in layout.plate_groups(self.name, sorted(fields))}
            for name in filter(layout.WELL_FILE.fullmatch, names):
                if name not in kept:
                    self.place.delete(name)

    def _write_metadata(
        self, records: Sequence[FieldRecord], percentiles: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Write every group's `zarr.json`, the root's last, and before it the checksums of all files."""
        fields = [record.key for record in records]
        windows = [(values["1"], max(values["99.9"], values["1"] + 1)) for values in percentiles.values()]
        largest = int(np.iinfo(self.dtype).max)
        images = {
            key.group: layout.image_metadata(
                str(key), self.channels, pixel_size_um=self.pixel_size_um, windows=windows, largest=largest
            )
            for key in fields
        }
        groups = layout.plate_groups(self.name, fields) | images
        known = {
            f"{record.key.group}/{file.name}": file.sha256 for record in records for file in record.files
        }
        contents = {
            # Those of fields are many.
            f"{path}/zarr.json".lstrip("/"): json_bytes(
                layout.group(groups[path]), is_indented=path not in images
            )
            for path in groups
        }
        known |= {name: sha256_of(content) for name, content in contents.items()}
        write_checksums(self.place, known)
        root = contents.pop("zarr.json")
        write_all(self.place, contents)
        # Names are flushed once, not with each file: a field whose files are lost with the power is written anew.
        self.place.flush()
        self.companion.flush()
        self.place.write("zarr.json", root)
        self.place.flush()
