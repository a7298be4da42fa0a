"""Which reader fits a folder, and what gave it away."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError, UsageError
from cellvim.ingest.readers.cellomics import CellomicsReader
from cellvim.ingest.readers.cellvoyager.reader import CellVoyagerReader
from cellvim.ingest.readers.imagexpress.reader import ImageXpressReader
from cellvim.ingest.readers.load_data.reader import LoadDataReader
from cellvim.ingest.readers.ome_tiff.reader import OmeTiffReader
from cellvim.ingest.readers.ome_zarr.reader import OmeZarrReader
from cellvim.ingest.readers.operetta.reader import OperettaReader
from cellvim.ingest.readers.pattern import PatternReader
from cellvim.ingest.readers.pattern_hint import suggest_pattern
from cellvim.ingest.sources import Source, SourcePlate, SourceReader, some

logger = logging.getLogger(__name__)

# In order of certainty: a pattern is an order, an index is proof, names are a guess.
READERS: dict[str, SourceReader] = {
    "pattern": PatternReader(),
    "load-data": LoadDataReader(),
    "ome-zarr": OmeZarrReader(),
    "operetta": OperettaReader(),
    "imagexpress": ImageXpressReader(),
    "cellvoyager": CellVoyagerReader(),
    "ome-tiff": OmeTiffReader(),
    "cellomics": CellomicsReader(),
}


# Whose index a file is, by its ending.
_INDEXES = {".xml": "operetta", ".htd": "imagexpress", ".mlf": "cellvoyager", ".mrf": "cellvoyager"}


def read_source(path: Path, settings: IngestSettings) -> list[SourcePlate]:
    """List the plates of one source, with the reader asked for or the first that recognises it.

    Raises:
        NotFoundError: Nothing is there.
        UsageError: A folder of images is given for a folder.
        InputError: Empty folder, or no reader recognises it.
    """
    if not path.exists():
        raise NotFoundError(path, expected="folder of images", hint="check the path")
    if settings.images is not None and not path.is_file():
        found = f"--images goes with a table such as load_data.csv, and {path} is a folder"
        raise UsageError(found, hint="leave --images out")
    source = Source(path, settings.images)
    if settings.source != "auto":
        return READERS[settings.source].read(source, settings)
    for reader in _readers_for(source):
        if (evidence := reader.recognise(source, settings)) is not None:
            logger.info("%s: %s", path, evidence)
            return _with_what_is_left(reader.read(source, settings), source)
    raise _unrecognised(source)


def _readers_for(source: Source) -> list[SourceReader]:
    """All readers for a folder; for a file those that take it for what it says, not for the folder around it."""
    if not source.path.is_file():
        return list(READERS.values())
    suffix = source.path.suffix.lower()
    names = {"load-data", "ome-tiff", _INDEXES.get(suffix, "load-data")}
    return [reader for name, reader in READERS.items() if name in names]


def _with_what_is_left(plates: Sequence[SourcePlate], source: Source) -> list[SourcePlate]:
    """Note on the first plate what lies in the source and is in no plate, such as a plate of another vendor."""
    if not source.path.is_dir():
        return list(plates)
    first, *others = plates
    return [replace(first, notes=(*first.notes, *_left_folders(plates, source), *_links(source))), *others]


def _left_folders(plates: Sequence[SourcePlate], source: Source) -> Iterator[str]:
    """Name folders of images of which no plate has any, be it from there, from above or from below."""
    used = {folder.resolve() for folder in {plane.path.parent for plate in plates for plane in plate.planes}}
    above = {parent for folder in used for parent in folder.parents}
    counts = Counter(path.parent for path in source.files())
    left = [
        folder
        for folder, real in ((folder, folder.resolve()) for folder in counts)
        if real not in above and used.isdisjoint((real, *real.parents))
    ]
    if left:
        names = some([folder.relative_to(source.folder).as_posix() for folder in left])
        yield f"{sum(counts[folder] for folder in left)} images are in folders that belong to no plate: {names}"


def _links(source: Source) -> Iterator[str]:
    """Name links to folders, which are not followed: they could lead round in circles."""
    links = [path.name for path in sorted(source.folder.iterdir()) if path.is_symlink() and path.is_dir()]
    if links:
        yield f"{len(links)} links to folders are not followed: {some(links)}"


def _unrecognised(source: Source) -> InputError:
    images = source.files()
    if source.path.is_file():
        found = f"{source.path} is no file that describes a plate"
        return InputError(found, hint="name the folder of images, or an index such as load_data.csv")
    if not images:
        found = "; ".join([f"{source.path} holds no TIFF images", *_links(source)])
        return InputError(found, hint="name the folder that holds the images, or one above it")
    names = some([path.name for path in images])
    found = f"{source.path}: {len(images)} images, of no kind that cellvim recognises: {names}"
    guess = suggest_pattern([path.relative_to(source.folder) for path in images])
    pattern = guess or "{well}_{field}_{channel}.tif"
    return InputError(found, hint=f"describe the names: --pattern '{pattern}'")
