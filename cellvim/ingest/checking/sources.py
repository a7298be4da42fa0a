"""Are the files that a plate was made from still there, and unchanged?"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.errors import InputError
from cellvim.ingest.images import fingerprint, read_header
from cellvim.ingest.images.tiff_tags import DamagedImageError, read_description
from cellvim.ingest.readers.ome_tiff.xml import MOST_XML_BYTES, OME_XML_IN
from cellvim.ingest.sources import ImagePart, list_files, some
from cellvim.provenance import sha256_of, sha256_of_file
from cellvim.store import PlateReader
from cellvim.store.parallel import in_parallel
from cellvim.store.records import load_table
from cellvim.store.signature import RUN_FILE
from cellvim.store.verification import Verification
from cellvim.store.writer import MANIFEST_FILE

_AT_ONCE = 4


def check_sources(location: Path | str, folder: Path, found: Verification, *, quick: bool) -> set[str]:
    """Compare a plate's source files with what the manifest and the record of the run say of them.

    Args:
        location: The plate.
        folder: That was given to ingest, here or at another place.
        found: Receives problems, notes and counts.
        quick: Compare sizes alone.

    Returns:
        Names of all files in the manifest.

    Raises:
        InputError: The manifest is lost or damaged, or it speaks of another folder.
    """
    reader = PlateReader(location)
    manifest = load_table(reader.companion, MANIFEST_FILE)
    try:
        rows = manifest.select("name", "part", "size_bytes", "sha256").unique(maintain_order=True).rows()
    except pl.exceptions.PolarsError as error:
        message = f"{reader.companion.location}/{MANIFEST_FILE} lacks something: {error}"
        raise InputError(message, hint="ingest again with --overwrite") from error
    unread = sum(not sha256 for *_, sha256 in rows)
    if unread:
        found.notes.append(
            f"{unread} source planes were damaged when the plate was made, and are not compared"
        )
    known = [row for row in rows if row[3]]

    def check(row: tuple[str, str, int, str]) -> str | None:
        name, part, size_bytes, sha256 = row
        if not _is_inside(name):
            return "leads out of the folder of sources"
        image = ImagePart(
            folder / name, tuple(int(number) for number in part.split("/") if number.isdecimal())
        )
        return _problem(image, size_bytes, sha256, quick=quick)

    if known and not any(_is_inside(name) and (folder / name).exists() for name, *_ in known):
        found.sources += len(known)
        message = (
            f"none of its {len(known):,} source files lies in {folder}; is it the folder that was ingested?"
        )
        raise InputError(message, hint="name the folder that was ingested")
    checked = in_parallel(check, known, label=f"sources of {reader.name}", workers=_AT_ONCE)
    for (name, part, *_), problem in zip(known, checked, strict=True):
        found.sources += 1
        if problem:
            found.problems.append(f"source {name}{f' part {part}' if part else ''} {problem}")
    found.problems += _changed_inputs(reader, folder, found)
    return {name for name, *_ in rows}


def unlisted_images(folder: Path, listed: set[str]) -> list[str]:
    """Say which images no manifest names: later ones, or thumbnails that were left out."""
    images = [path.relative_to(folder).as_posix() for path in list_files(folder)]
    others = sorted(set(images) - listed)
    return [f"{len(others)} images in {folder} are not in the manifest: {some(others)}"] if others else []


def _is_inside(name: str) -> bool:
    """Whether a name of the manifest, which may be a stranger's, stays below the folder that it starts from."""
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def _problem(image: ImagePart, size_bytes: int, sha256: str, *, quick: bool) -> str | None:
    if not image.path.exists():
        return "is missing"
    try:
        if quick:
            size = read_header(image).size_bytes
            return (
                None if size == size_bytes else f"has {size:,} bytes, {size_bytes:,} when the plate was made"
            )
        return None if fingerprint(image) == (size_bytes, sha256) else "has changed since the plate was made"
    except DamagedImageError as error:
        return f"cannot be read any more: {error.found}"


def _changed_inputs(reader: PlateReader, folder: Path, found: Verification) -> list[str]:
    """Compare what said where each plane belongs: indices, tables and OME-XML, and the plate map."""
    try:
        record = json.loads(reader.companion.read(RUN_FILE))
        inputs = {str(name): str(sha256) for name, sha256 in record["inputs"].items()}
        search = _Search.of(record, folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # Said before, if it should be there.
        return []
    problems = []
    for name, sha256 in inputs.items():
        path = _path_of(name)
        now = search.find(path)
        if now is None and search.is_platemap(path):
            found.notes.append(f"{path} is not there to be compared")
            continue
        found.sources += 1
        label = name.replace(str(path), search.label(path))
        if now is None:
            problems.append(f"source {label} is missing")
        elif _sha256(now, is_embedded=name.startswith(OME_XML_IN)) != sha256:
            problems.append(f"source {label} has changed since the plate was made")
    return problems


def _path_of(name: str) -> Path:
    return Path(name.removeprefix(OME_XML_IN))


@dataclass(frozen=True)
class _Search:
    """Where the inputs of a run lie now.

    Attributes:
        home: Folder of the images when the plate was made, as named then.
        folder: Where the images are now.
        maps: Folder of the plate map; None if there was none.
    """

    home: Path
    folder: Path
    maps: Path | None

    @classmethod
    def of(cls, record: Mapping[str, Any], folder: Path) -> "_Search":
        platemap = record["settings"].get("platemap")
        return cls(Path(record["facts"]["folder"]), folder, platemap and Path(platemap).parent)

    def find(self, path: Path) -> Path | None:
        """Below the folder, where it lay before; else, if it lay elsewhere, beside it as before, or still there."""
        candidates = [self.folder / os.path.relpath(path, self.home)]
        if not self._was_inside(path):
            candidates.append(path)
        return next((candidate for candidate in candidates if candidate.is_file()), None)

    def label(self, path: Path) -> str:
        return str(path.relative_to(self.home) if self._was_inside(path) else path)

    def is_platemap(self, path: Path) -> bool:
        """A plate map that lies apart from the images need not move with them."""
        return self.maps is not None and path.is_relative_to(self.maps) and not self._was_inside(path)

    def _was_inside(self, path: Path) -> bool:
        return path.is_relative_to(self.home)


def _sha256(path: Path, *, is_embedded: bool) -> str:
    if not is_embedded:
        return sha256_of_file(path)
    try:
        with path.open("rb") as file:
            content = read_description(file, path.stat().st_size, MOST_XML_BYTES)
    except (DamagedImageError, OSError):
        return ""
    return sha256_of(content)
