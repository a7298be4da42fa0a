"""OME-Zarr HCS plates as a source, versions 0.1 to 0.5: folders with plate metadata."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.ome_zarr.metadata import METADATA_FILES, ome_attributes, plate_metadata
from cellvim.ingest.readers.ome_zarr.naming import plate_name
from cellvim.ingest.readers.ome_zarr.plate import read_plates
from cellvim.ingest.sources import Source, SourcePlate, some

_DEPTH = 3
_MOST_FOLDERS = 20_000
_OUR_COMPANION = ".cellvim"


class OmeZarrReader:
    """Reads plates of OME-Zarr, our own as well: the folder of one, or a folder with several somewhere in it."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        if not source.path.is_dir():
            return None
        try:
            candidates = list(_candidates(source.path))
        except InputError:
            return None
        # A plate among images may well have been made from them.
        if not candidates or (source.path not in candidates and source.files()):
            return None
        return f"OME-Zarr: found {some([folder.name for folder in candidates])}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:  # noqa: ARG002 - the protocol
        candidates = list(_candidates(source.folder))
        if not candidates:
            found = f"{source.path} holds no OME-Zarr plate"
            raise InputError(found, hint="name the plate's folder (often NAME.zarr), or one above it")
        others = [folder for folder in candidates if len(candidates) > 1 and _is_other(folder)]
        names = _names([folder for folder in candidates if folder not in others])
        plates = [
            plate for folder in names for plate in read_plates(folder, source.folder, name=names[folder])
        ]
        if not plates:
            found = (
                f"{source.path} holds no OME-Zarr plate, only images: {some([path.name for path in others])}"
            )
            raise InputError(found, hint="a plate has plate metadata in its .zattrs or zarr.json")
        if others:
            note = f"left out, as they are no plates: {some([path.name for path in others])}"
            plates[0] = replace(plates[0], notes=(*plates[0].notes, note))
        return plates


def plates_in(folder: Path) -> list[Path]:
    """Plates among a folder and what lies in it, at most three folders deep."""
    try:
        return [path for path in _candidates(folder) if _is_plate(path)]
    except InputError:
        return []


def _candidates(folder: Path) -> Iterator[Path]:
    """Folders that are zarr by their name or their metadata; nothing inside of them is looked at."""
    waiting, seen = [(folder, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        seen += 1
        if seen > _MOST_FOLDERS:
            found = f"{folder} and its neighbours are more than {_MOST_FOLDERS:,} folders"
            raise InputError(found, hint="name the folder of the plate itself")
        if folder.name.endswith(".zarr") or any((folder / name).is_file() for name in METADATA_FILES):
            yield folder
        elif depth < _DEPTH:
            waiting += [(path, depth + 1) for path in reversed(_folders_in(folder))]


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            # Tells folders from files without asking for each of many thousand images.
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [folder / name for name in sorted(names) if name[0] != "." and not name.endswith(_OUR_COMPANION)]


def _is_plate(folder: Path) -> bool:
    try:
        return "plate" in ome_attributes(folder)
    except InputError:
        return False


def _is_other(folder: Path) -> bool:
    """A zarr that is whole, and no plate."""
    try:
        return "plate" not in ome_attributes(folder)
    except InputError:
        return False


def _names(folders: Sequence[Path]) -> dict[Path, str]:
    """The plates' own names; those of their folders where the plates' own do not tell them apart."""
    own = {folder: plate_name(plate_metadata(folder).name, folder) for folder in folders}
    uses = Counter(own.values())
    return {folder: name if uses[name] == 1 else plate_name("", folder) for folder, name in own.items()}
