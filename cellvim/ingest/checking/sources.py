"""Are the files that a plate was made from still there, and unchanged?"""

import json
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.ingest.images import fingerprint, read_header
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.sources import ImagePart, list_files, some
from cellvim.provenance import sha256_of_file
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
        InputError: The manifest is lost or damaged.
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
        image = ImagePart(
            folder / name, tuple(int(number) for number in part.split("/") if number.isdecimal())
        )
        return _problem(image, size_bytes, sha256, quick=quick)

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
    """Indices and tables that said where each plane belongs, as far as they lie in the source folder."""
    try:
        record = json.loads(reader.companion.read(RUN_FILE))
        inputs = [(Path(name), str(sha256)) for name, sha256 in record["inputs"].items()]
        roots = [Path(source) for source in record["settings"]["sources"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # Said before, if it should be there.
        return []
    problems = []
    for path, sha256 in inputs:
        root = next((root for root in roots if path.is_relative_to(root)), None)
        if root is None:
            continue
        name = path.relative_to(root)
        found.sources += 1
        if not (folder / name).is_file():
            problems.append(f"source {name} is missing")
        elif sha256_of_file(folder / name) != sha256:
            problems.append(f"source {name} has changed since the plate was made")
    return problems
