"""Yokogawa CellVoyager and CQ1: MeasurementData.mlf, .mrf and .mes; or the names of the images alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.cellvoyager.index import HINT, Record, iso_time, read_records
from cellvim.ingest.readers.cellvoyager.names import is_correction, is_named, named_otherwise, read_names
from cellvim.ingest.readers.cellvoyager.settings import Described, Detail, Protocol, describe
from cellvim.ingest.readers.locate import refuse_shared
from cellvim.ingest.readers.plate_names import tell_apart
from cellvim.ingest.sources import MOST_FILES, Plane, Source, SourcePlate, natural, some
from cellvim.store import FieldKey, well_name

_INDEX = "measurementdata.mlf"


class CellVoyagerReader:
    """Reads measurements of CV7000, CV8000 and CQ1."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        indexes = _find_indexes(_home(source))
        if indexes:
            return f"CellVoyager: found {indexes[0].name}"
        named = next((path for path in source.files() if is_named(path)), None)
        return f"CellVoyager: found names such as {named.name}, and no MeasurementData.mlf" if named else None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        evidence = self.recognise(source, settings)
        if evidence is None:
            found = f"{source.folder} holds no MeasurementData.mlf, and no names such as P_A01_T0001F001L01A01Z01C01.tif"
            raise InputError(
                found, hint="name the folder of one measurement, or describe the names with --pattern"
            )
        home = _home(source)
        indexes = _find_indexes(home)
        if indexes:
            images = _share_out(home.files(), [index.parent for index in indexes])
            measurements = [_read_index(index, images[index.parent], home) for index in indexes]
        else:
            others = [path.name for path in source.files() if not is_named(path) and not is_correction(path)]
            notes = [f"{len(others)} images have other names: {some(others)}"] if others else []
            measurements = [
                _Measurement(root, describe(root, source), list(planes), list(notes), name=name)
                for (root, name), planes in read_names(source).items()
            ]
        names = tell_apart([(one.root, one.own_name) for one in measurements])
        return [one.plate(name, home.folder, evidence) for one, name in zip(measurements, names, strict=True)]


@dataclass
class _Measurement:
    """One measurement, collected while its index streams by.

    Attributes:
        wells: Named by records of errors.
        began: Time of the first image.
        name: What the images' names begin with; empty if an index says it better.
        index: None if the images' names are all there is.
    """

    root: Path
    described: Described
    planes: list[Plane] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wells: dict[str, None] = field(default_factory=dict)
    began: str = ""
    name: str = ""
    index: Path | None = None

    @property
    def own_name(self) -> str:
        return (
            self.described.detail.plate
            or self.name
            or self.described.detail.title
            or self.root.resolve().name
        )

    def plate(self, name: str, folder: Path, evidence: str) -> SourcePlate:
        detail, protocol = self.described.detail, self.described.protocol
        channels = sorted({plane.channel for plane in self.planes}, key=natural)
        size, notes = _pixel_size(detail, channels)
        return SourcePlate(
            name=name,
            folder=folder,
            evidence=evidence,
            planes=tuple(self.planes),
            stains={key: protocol.stains[key] for key in channels if key in protocol.stains},
            pixel_size_um=size,
            declared_wells=tuple(dict.fromkeys([*_wells(protocol), *self.wells])),
            notes=(*self.described.notes, *self.notes, *notes),
            wavelengths={key: protocol.wavelengths[key] for key in channels if key in protocol.wavelengths},
            acquired=detail.began or iso_time(self.began),
            barcode=detail.plate or None,
            described_by=(*((self.index,) if self.index else ()), *self.described.files),
        )


def _home(source: Source) -> Source:
    """The measurement's folder, also where the user named the folder of images inside of it."""
    above = source.folder.resolve().parent
    if (
        not source.path.is_dir()
        or source.files(frozenset({".mlf"}))
        or not any(map(is_named, source.files()))
    ):
        return source
    return Source(above) if (above / "MeasurementData.mlf").is_file() else source


def _find_indexes(source: Source) -> list[Path]:
    if source.path.suffix.lower() == ".mlf":
        return [source.path]
    return [path for path in source.files(frozenset({".mlf"})) if path.name.lower() == _INDEX]


def _share_out(images: Sequence[Path], roots: Sequence[Path]) -> dict[Path, list[Path]]:
    """Give each image to the innermost measurement whose folder it lies in."""
    shares: dict[Path, list[Path]] = {root: [] for root in roots}
    owners: dict[Path, Path | None] = {}
    for path in images:
        folder = path.parent
        if folder not in owners:
            owners[folder] = next((above for above in (folder, *folder.parents) if above in shares), None)
        owner = owners[folder]
        if owner is not None:
            shares[owner].append(path)
    return shares


def _read_index(index: Path, images: Sequence[Path], source: Source) -> _Measurement:
    root = index.parent
    measurement = _Measurement(root, describe(root, source), index=index)
    locate = _Locator(root, images)
    seen = _Seen()
    for record in read_records(index):
        seen.add(record)
        if record.kind == "IMG":
            if len(measurement.planes) >= MOST_FILES:
                found = f"{index} names more than {MOST_FILES:,} images"
                raise InputError(found, hint="ingest one measurement at a time")
            measurement.planes.append(_plane(record, locate, seen, index))
        elif record.row and record.column and (well := _well(record.row, record.column)):
            measurement.wells.setdefault(well)
    if not measurement.planes:
        found = f"{index} names no images"
        raise InputError(found, hint="export the measurement again, with its images")
    refuse_shared({measurement.own_name: measurement.planes}, index)
    measurement.began = seen.began
    measurement.notes += [*seen.notes(), *locate.notes(measurement.planes, source)]
    return measurement


@dataclass
class _Seen:
    """What the records of one index have in common, and what is odd about them."""

    fields: dict[tuple[int, int, int], FieldKey] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    projections: Counter[str] = field(default_factory=Counter)
    tiles: set[int] = field(default_factory=set)
    misnamed: list[str] = field(default_factory=list)
    began: str = ""

    def add(self, record: Record) -> None:
        if record.kind != "IMG":
            self.others[record.kind] += 1
            self.first.setdefault(record.kind, record.text)
            return
        if record.projection:
            self.projections[record.projection] += 1
        if record.tile is not None:
            self.tiles.add(record.tile)
        if record.time and not (self.began and self.began <= record.time):
            self.began = record.time

    def notes(self) -> list[str]:
        notes = [
            f"{count} record(s) of type {kind!r} are no images, first: {self.first[kind]!r}"
            for kind, count in sorted(self.others.items())
        ]
        if self.projections:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(self.projections.items()))
            notes.append(f"projected by the instrument: {kinds}")
        if self.misnamed:
            notes.append(
                f"{len(self.misnamed)} images are named for another place than the index gives them: "
                f"{some(self.misnamed)}"
            )
        if len(self.tiles) > 1:
            notes.append(f"fields are tiled in {len(self.tiles)}: tiles are not stitched")
        return notes


def _plane(record: Record, locate: "_Locator", seen: _Seen, index: Path) -> Plane:
    row, column, site, channel = record.row, record.column, record.site, record.channel
    if row is None or column is None or site is None or channel is None or not record.text:
        found = f"{index}: the record of {record.text!r} lacks a file name, row, column, field or channel"
        raise InputError(found, hint=HINT)
    key = seen.fields.get((row, column, site))
    if key is None:
        well = _well(row, column)
        if well is None:
            found = f"{index}: the record of {record.text!r} lies in row {row} column {column}, outside of any plate"
            raise InputError(found, hint=HINT)
        key = seen.fields[row, column, site] = FieldKey(well, site)
    path = locate(record.text)
    if named_otherwise(path.name, key, channel):
        seen.misnamed.append(f"{path.name} ({key}, channel {channel})")
    is_projection = bool(record.projection)
    z = None if is_projection else record.z
    return Plane(path, key, str(channel), z=z, t=record.t, is_projection=is_projection)


class _Locator:
    """Finds the files that an index names, and only inside of its folder."""

    def __init__(self, root: Path, images: Sequence[Path]) -> None:
        self._root = root
        self._images = images
        self._exact = {path.relative_to(root).as_posix(): path for path in images}
        self._by_path = {name.lower(): path for name, path in self._exact.items()}
        counts = Counter(path.name.lower() for path in images)
        self._by_name = {path.name.lower(): path for path in images if counts[path.name.lower()] == 1}
        self._trusted: set[tuple[str, ...]] = set()

    def __call__(self, text: str) -> Path:
        path = self._exact.get(text)
        if path is not None:
            return path
        relative = PureWindowsPath(text)
        if relative.anchor or ".." in relative.parts or "\0" in text:
            raise self._outside(text)
        name = relative.as_posix()
        path = self._exact.get(name) or self._by_path.get(name.lower())
        if path is None and len(relative.parts) == 1:
            # Images that lay beside the index may have been moved into a folder. Elsewhere, folders tell names apart.
            path = self._by_name.get(name.lower())
        if path is not None:
            return path
        path = self._root.joinpath(*relative.parts)
        if relative.parts[:-1] not in self._trusted:
            if not path.resolve().is_relative_to(self._root.resolve()):
                raise self._outside(text)
            self._trusted.add(relative.parts[:-1])
        return path

    def notes(self, planes: Sequence[Plane], source: Source) -> list[str]:
        """Name files that the index does not, and those that are there in another format."""
        named = {plane.path for plane in planes}
        unnamed = [path for path in self._images if path not in named]
        strangers = [path.name for path in unnamed if not is_correction(path)]
        notes = []
        if len(strangers) < len(unnamed):
            notes.append(f"{len(unnamed) - len(strangers)} correction images skipped")
        if strangers:
            notes.append(f"{len(strangers)} images are not in the index: {some(strangers)}")
        lost = {path.stem.lower() for path in named - set(self._images)}
        converted = [path.name for path in source.files(frozenset({".png"})) if path.stem.lower() in lost]
        if converted:
            notes.append(f"{len(converted)} images are there as PNG, which is not read: {some(converted)}")
        return notes

    def _outside(self, text: str) -> InputError:
        found = f"the index names {text!r}, which lies outside of the measurement"
        return InputError(found, hint="do not trust this index")


def _well(row: int, column: int) -> str | None:
    try:
        return well_name(row, column)
    except InputError:
        return None


def _wells(protocol: Protocol) -> list[str]:
    return [well for row, column in protocol.wells if (well := _well(row, column))]


def _pixel_size(detail: Detail, channels: Sequence[str]) -> tuple[float | None, list[str]]:
    """Side of a pixel, and a note where the channels disagree about it."""
    found = [detail.pixel_sizes_um[key] for key in channels if key in detail.pixel_sizes_um]
    sides = {side for size in found for side in size}
    if not sides:
        return None, []
    if max(sides) > 1.001 * min(sides):
        named = ", ".join(f"{side:g}" for side in sorted(sides)[:4])
        return None, [f"the channels have several pixel sizes ({named} um): none is recorded"]
    return found[0][0], []
