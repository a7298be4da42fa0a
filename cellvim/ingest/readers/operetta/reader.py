"""Opera Phenix and Operetta (Harmony): by the index of a measurement, or by the names of its images alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.operetta import facts
from cellvim.ingest.readers.operetta.folders import (
    Locator,
    Measurement,
    find_measurements,
    name_plates,
    plate_of,
    sort_files,
)
from cellvim.ingest.readers.operetta.index import Index, IndexImage, parse_index
from cellvim.ingest.readers.operetta.names import plane_of, plates_of
from cellvim.ingest.sources import Plane, Source, SourcePlate, list_files, some

# What a camera saw; Harmony stores some of what it computes as further images of the same place.
_SIGNAL = "Signal"
_FINE = "Ok"


class OperettaReader:
    """Reads Harmony measurements, as exported or as archived."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        measurements = find_measurements(source)
        if measurements:
            return f"Operetta: found {measurements[0].index.name}"
        if source.path.is_file():
            return None
        named = next((path for path in source.files() if plane_of(path)), None)
        return None if named is None else f"Operetta: no index, names such as {named.name}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        measurements = find_measurements(source)
        folder = source.folder
        files = source.files()
        if source.path.is_file() and measurements:
            folder = measurements[0].home
            files = list_files(folder)
        by_root = sort_files(files, [measurement.root for measurement in measurements])
        plates = [(found.home, _plate(found, by_root[found.root], folder)) for found in measurements]
        if not source.path.is_file():
            taken = {path for paths in by_root.values() for path in paths}
            plates += plates_of((path for path in files if path not in taken), folder)
        if not plates:
            found = (
                f"{source.path} has no Index.idx.xml or Index.xml in or above it, nor images named by Harmony"
            )
            raise InputError(
                found, hint="name the folder of one measurement; an image is r01c01f01p01-ch1sk1fk1fl1.tiff"
            )
        names = name_plates([(home, plate.name) for home, plate in plates], settings.plate)
        return [replace(plate, name=name) for (_, plate), name in zip(plates, names, strict=True)]


def _plate(measurement: Measurement, files: Sequence[Path], folder: Path) -> SourcePlate:
    index = parse_index(measurement.index)
    if not index.images:
        found = f"{measurement.index} names no images"
        hint = (
            "export it again, with its images; if it is no index of Harmony's, name the reader with --source"
        )
        raise InputError(found, hint=hint)
    locate = Locator(measurement, folder, files)
    paths = [locate(image.url) for image in index.images]
    if not any(paths) and not measurement.index.resolve().is_relative_to(folder.resolve()):
        found = f"{measurement.index} names none of the images in {folder}"
        raise InputError(found, hint="name the folder of the whole measurement")
    pairs = zip(index.images, paths, strict=True)
    planes = [_plane(image, path or locate.lost(image.url)) for image, path in pairs]
    notes = [*_notes(index, measurement), *_strangers(files, paths), *_misnamed(planes)]
    name = _plate_name(index, measurement, notes)
    return SourcePlate(
        name=name,
        folder=folder,
        evidence=f"Operetta: found {measurement.index.name}",
        planes=_without_computed(index.images, planes, notes),
        stains=facts.stains_of(index, notes),
        pixel_size_um=facts.pixel_size_of(index, notes),
        declared_wells=facts.declared_wells_of(index, notes),
        wavelengths=facts.wavelengths_of(index),
        acquired=facts.start_of(index, notes),
        barcode=name,
        described_by=(measurement.index,),
        # Last, as some of the others add to them.
        notes=tuple(notes),
    )


def _plane(image: IndexImage, path: Path) -> Plane:
    part = () if image.page is None else (image.page,)
    return Plane(path, image.key, image.channel, z=image.z, t=image.t, part=part)


def _without_computed(
    images: Sequence[IndexImage], planes: Sequence[Plane], notes: list[str]
) -> tuple[Plane, ...]:
    """Leave out what was computed from an image that is there as well; a computed channel of its own stays."""
    places = [(plane.field, plane.channel, plane.z, plane.t) for plane in planes]
    seen = {place for place, image in zip(places, images, strict=True) if image.kind == _SIGNAL}
    is_spare = [image.kind != _SIGNAL and place in seen for place, image in zip(places, images, strict=True)]
    counts = Counter(image.kind for image, spare in zip(images, is_spare, strict=True) if spare)
    notes += [
        f"{count} images of type {kind} are left out: the {_SIGNAL} is there"
        for kind, count in counts.items()
    ]
    return tuple(plane for plane, spare in zip(planes, is_spare, strict=True) if not spare)


def _notes(index: Index, measurement: Measurement) -> list[str]:
    notes = [f"{path.name} is not used: {measurement.index.name} is" for path in measurement.unused]
    lost = [image.url for image in index.images if not image.is_recorded]
    if lost:
        notes.append(f"{len(lost)} images of the index have no file: {some(lost)}")
    for state in sorted({image.state for image in index.images} - {_FINE}):
        names = [image.url for image in index.images if image.state == state]
        notes.append(f"{len(names)} images have the state {state}: {some(names)}")
    return notes


def _strangers(files: Sequence[Path], named: Sequence[Path | None]) -> list[str]:
    known = set(named)
    names = [path.name for path in files if path not in known]
    return [f"{len(names)} images are not in the index: {some(names)}"] if names else []


def _misnamed(planes: Sequence[Plane]) -> list[str]:
    """Harmony writes a plane's place into the name of its file as well: a digit that differs is damage."""
    names = []
    for plane in planes:
        named = plane_of(plane.path)
        if named and (named.field, named.channel, named.z) != (plane.field, plane.channel, plane.z):
            names.append(f"{plane.path.name} ({plane.field}, channel {plane.channel}, plane {plane.z})")
    if not names:
        return []
    return [f"{len(names)} images are named for another place than the index gives them: {some(names)}"]


def _plate_name(index: Index, measurement: Measurement, notes: list[str]) -> str:
    """PlateID, which is the barcode; else the plate's other name; else what the folder is called."""
    names = list(dict.fromkeys(plate_id or name for plate_id, name in index.plates if plate_id or name))
    if len(names) > 1:
        notes.append(f"the index names {len(names)} plates: {some(names)}; all images go to the first")
    return names[0] if names else plate_of(measurement.home)
