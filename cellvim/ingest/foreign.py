"""OME-Zarr plates of other programs, looked over where they lie: no checksums exist, so everything is read."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest import zarr_arrays
from cellvim.ingest.ome_zarr import plates_in
from cellvim.ingest.ome_zarr_metadata import image_arrays, path_parts, plate_metadata, well_images
from cellvim.ingest.tiff import DamagedImageError
from cellvim.progress import progress_bar
from cellvim.store.place import LocalPlace
from cellvim.store.specification import check_metadata
from cellvim.store.verification import Verification

_AT_ONCE = 2


def find_foreign(folder: Path) -> list[Path]:
    """The folder if it is an OME-Zarr plate, else the plates in it."""
    return plates_in(folder) if folder.is_dir() else []


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
    with (
        ThreadPoolExecutor(_AT_ONCE) as pool,
        progress_bar(f"verify {folder.name}", total=len(arrays)) as advance,
    ):
        checked = pool.map(lambda array: _check_array(array, quick=quick), arrays)
        for array, (problem, size) in zip(arrays, checked, strict=True):
            found.bytes_read += size
            if problem:
                found.problems.append(f"{array.relative_to(folder)} {problem}")
            advance()
    return found


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
