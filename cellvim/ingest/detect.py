"""Which reader fits a folder, and what gave it away."""

import logging
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.ingest.imagexpress import ImageXpressReader
from cellvim.ingest.operetta import OperettaReader
from cellvim.ingest.pattern import PatternReader
from cellvim.ingest.sources import SourcePlate, SourceReader, list_files, some

logger = logging.getLogger(__name__)

# In order of certainty: a pattern is an order, an index is proof, names are a guess.
READERS: dict[str, SourceReader] = {
    "pattern": PatternReader(),
    "operetta": OperettaReader(),
    "imagexpress": ImageXpressReader(),
}


def read_source(folder: Path, settings: IngestSettings) -> list[SourcePlate]:
    """List the plates of one source folder, with the reader asked for or the first that recognises it.

    Raises:
        NotFoundError: No such folder.
        InputError: Empty folder, or no reader recognises it.
    """
    if not folder.is_dir():
        raise NotFoundError(folder, expected="folder of images", hint="name the folder, not a file in it")
    if settings.source != "auto":
        return READERS[settings.source].read(folder, settings)
    for reader in READERS.values():
        if (evidence := reader.recognise(folder, settings)) is not None:
            logger.info("%s: %s", folder, evidence)
            return reader.read(folder, settings)
    images = list_files(folder)
    if not images:
        found = f"{folder} holds no TIFF images"
        raise InputError(found, hint="name the folder that holds the images, or one above it")
    found = f"{folder}: {len(images)} images, of no kind that cellvim recognises: {some([p.name for p in images])}"
    raise InputError(found, hint="describe the names: --pattern '{well}_{field}_{channel}.tif'")
