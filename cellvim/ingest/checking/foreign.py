"""OME-Zarr plates of other programs, looked over where they lie."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cellvim.errors import InputError, NotFoundError
from cellvim.ingest.channels import name_channels
from cellvim.ingest.images import zarr_arrays
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.images.zarr_layout import ArrayLayout
from cellvim.ingest.readers.ome_zarr.metadata import image_arrays, path_parts, plate_metadata, well_images
from cellvim.ingest.readers.ome_zarr.naming import plate_name
from cellvim.ingest.readers.ome_zarr.plate import read_plates
from cellvim.ingest.readers.ome_zarr.reader import plates_in
from cellvim.ingest.sources import SourcePlate, natural
from cellvim.store import describe_plate, find_plates
from cellvim.store.layout import companion_of
from cellvim.store.parallel import in_parallel
from cellvim.store.place import LocalPlace, open_place
from cellvim.store.specification import check_metadata
from cellvim.store.verification import Verification

_AT_ONCE = 2


def find_any(locations: Iterable[Path | str]) -> list[Path | str]:
    """List plates: ours, and OME-Zarr plates of other programs where there are none of ours.

    Raises:
        NotFoundError: A location holds none.
    """
    found: dict[str, Path | str] = {}
    for location in locations:
        try:
            plates: Sequence[Path | str] = find_plates([location])
        except NotFoundError:
            place = open_place(location)
            plates = plates_in(place.path) if isinstance(place, LocalPlace) else []
            if not plates:
                raise
        found |= {str(plate): plate for plate in plates}
    return list(found.values())


def describe_all(
    locations: Iterable[Path | str],
) -> tuple[list[tuple[str, dict[str, Any]]], list[InputError]]:
    """Facts about every plate, each with its location; and what is wrong with those that have none to tell.

    Raises:
        NotFoundError: A location holds no plate.
        InputError: Not one plate can be described.
    """
    described: list[tuple[str, dict[str, Any]]] = []
    failed: list[InputError] = []
    for plate in find_any(locations):
        try:
            described += [(str(plate), facts) for facts in describe_any(plate)]
        except InputError as error:
            failed.append(error)
    if not described:
        raise failed[0]
    return described, failed


def describe_any(location: Path | str) -> list[dict[str, Any]]:
    """Facts about a plate, ours or another program's, which may be several plates in one; see `describe_plate`.

    Raises:
        InputError: The plate is unfinished or damaged.
    """
    place = open_place(location)
    if not isinstance(place, LocalPlace) or companion_of(place).names():
        return [describe_plate(location)]
    name = plate_name(plate_metadata(place.path).name, place.path)
    return [_facts(place.path, plate) for plate in read_plates(place.path, place.path, name=name)]


def check_foreign(folder: Path, *, quick: bool = False) -> Verification:
    """Hold a plate's metadata against OME-Zarr 0.5 and read every chunk of every image.

    Args:
        folder: The plate, of version 0.1 to 0.5.
        quick: Only look whether all chunks are there.
    """
    found = Verification()
    found.notes.append(
        "there is no PLATE.cellvim beside it: no checksums to compare with; "
        "a flipped bit shows where the codec has a checksum of its own, and nowhere else"
    )
    if (folder / "zarr.json").is_file():
        found.problems += check_metadata(LocalPlace(folder)).problems
    else:
        found.notes.append("written before OME-Zarr 0.5: its metadata are not held against the specification")
    try:
        arrays = list(_arrays(folder, found))
    except InputError as error:
        found.problems.append(error.found)
        return found
    checked = in_parallel(
        lambda array: _check_array(array, quick=quick),
        arrays,
        label=f"verify {folder.name}",
        workers=_AT_ONCE,
    )
    for array, (problem, size) in zip(arrays, checked, strict=True):
        found.bytes_read += size
        if problem:
            found.problems.append(f"{array.relative_to(folder)} {problem}")
    return found


def _facts(folder: Path, plate: SourcePlate) -> dict[str, Any]:
    """As `describe_plate` has them, as far as the metadata of a foreign plate tell them."""
    fields = {plane.field for plane in plate.planes}
    layouts = [
        layout for path in dict.fromkeys(plane.path for plane in plate.planes) for layout in _layout(path)
    ]
    keys = sorted({plane.channel for plane in plate.planes}, key=natural)
    names = name_channels(keys, plate.stains, None)
    depths = {
        "z planes": {plane.z for plane in plate.planes},
        "time points": {plane.t for plane in plate.planes},
    }
    notes = [f"{len(numbers)} {what}" for what, numbers in depths.items() if len(numbers) > 1]
    wells = Counter(field.well for field in fields)
    return {
        "path": str(folder),
        "name": plate.name,
        "channels": list(names.values()),
        "wells": len(wells),
        "fields": len(fields),
        "shapes_px": sorted({layout.shape[-2:] for layout in layouts}),
        "dtype": ", ".join(sorted({layout.dtype for layout in layouts})),
        "pixel_size_um": plate.pixel_size_um,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "percentiles": {},
        "filled_planes": 0,
        "filled": {},
        "skipped": {well: "has no images" for well in plate.declared_wells if well not in wells},
        "fields_per_well": dict(wells),
        "platemap_columns": [],
        "perturbations": 0,
        "controls": {},
        "source": plate.evidence,
        "acquired": plate.acquired,
        "barcode": plate.barcode,
        "wavelengths": {
            name: asdict(plate.wavelengths[key]) for key, name in names.items() if key in plate.wavelengths
        },
        "notes": [*notes, *plate.notes],
    }


def _layout(array: Path) -> Iterator[ArrayLayout]:
    try:
        yield zarr_arrays.array_layout(array)
    except DamagedImageError:
        # Said in the notes, or by verify.
        return


def _arrays(folder: Path, found: Verification) -> Iterator[Path]:
    """Arrays of all fields and levels; groups that cannot be read become problems.

    Raises:
        InputError: The plate's own metadata cannot be read.
    """
    for path in plate_metadata(folder).wells:
        well = folder.joinpath(*path_parts(path, folder))
        try:
            images = well_images(well)
        except InputError as error:
            found.problems.append(error.found)
            continue
        for image in images:
            try:
                yield from image_arrays(well / image.path)
                found.fields += 1
            except InputError as error:
                found.problems.append(error.found)


def _check_array(array: Path, *, quick: bool) -> tuple[str | None, int]:
    """The first thing wrong with an array, and how many decoded bytes were read."""
    size = 0
    try:
        layout = zarr_arrays.array_layout(array)
        for part in itertools.product(*map(range, layout.shape[:-2])):
            if quick:
                zarr_arrays.check_plane(array, part)
            else:
                size += zarr_arrays.read_pixels(array, part).nbytes
    except DamagedImageError as error:
        return f"{error.found} (plane {'/'.join(map(str, part))})" if size else error.found, size
    return None, size
