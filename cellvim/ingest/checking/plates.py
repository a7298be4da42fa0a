"""Verify plates: ours against their checksums, others by reading every chunk, and the sources that ours came from."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from cellvim.errors import CellvimError, NotFoundError, UsageError
from cellvim.ingest.checking.foreign import check_foreign, find_any
from cellvim.ingest.checking.sources import check_sources, unlisted_images
from cellvim.store.layout import companion_of
from cellvim.store.place import LocalPlace, open_place
from cellvim.store.verification import Verification, check_stored

NOT_COMPARED = "sources cannot be compared"


def verify_plates(
    locations: Iterable[Path | str], *, sources: Path | None = None, quick: bool = False
) -> dict[str, Verification]:
    """Verify every plate named, and every plate in the folders named.

    Args:
        locations: Ours, or OME-Zarr plates of other programs.
        sources: The folder that was given to ingest; its files are compared with the manifest of the plates.
        quick: Compare sizes where there are sizes, and read no pixels.

    Returns:
        By location.

    Raises:
        NotFoundError: A location holds no plate, or `sources` is no folder.
        UsageError: `sources`, and no plate that was made by ingest.
    """
    if sources is not None and not sources.is_dir():
        raise NotFoundError(sources, expected="folder of images", hint="name the folder that was ingested")
    found: dict[str, Verification] = {}
    listed: set[str] = set()
    for location in find_any(locations):
        started = time.monotonic()
        place = open_place(location)
        is_ours = bool(companion_of(place).names())
        if is_ours or not isinstance(place, LocalPlace):
            result = check_stored(location, quick=quick)
        else:
            result = check_foreign(place.path, quick=quick)
        if sources is not None and is_ours:
            listed |= _check_sources(location, sources, result, quick=quick)
        result.seconds = round(time.monotonic() - started, 3)
        found[str(location)] = result
    if sources is not None:
        _note_unlisted(sources, listed, found)
    return found


def _check_sources(location: Path | str, sources: Path, result: Verification, *, quick: bool) -> set[str]:
    try:
        return check_sources(location, sources, result, quick=quick)
    except CellvimError as error:
        result.problems.append(f"{NOT_COMPARED}: {error.found}")
        return set()


def _note_unlisted(sources: Path, listed: set[str], found: Mapping[str, Verification]) -> None:
    if not any(result.sources for result in found.values()):
        message = "--sources compares files with the manifest of a plate, and none of these plates has one"
        raise UsageError(message, hint="name a plate that cellvim ingest made")
    for note in unlisted_images(sources, listed):
        next(iter(found.values())).notes.append(note)
