"""Is what a run read or wrote still there, and the same?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellvim.embed.masks import masks_sha256
from cellvim.errors import CellvimError, InputError
from cellvim.ingest.checking.sources import check_sources
from cellvim.provenance import Artifact, Node, sha256_of_file
from cellvim.provenance.chain import is_there
from cellvim.store import PlateReader
from cellvim.store.records import load_table, manifest_sha256
from cellvim.store.verification import Verification, check_stored
from cellvim.store.writer import MANIFEST_FILE

State = Literal["same", "changed", "missing", "not checked"]


@dataclass(frozen=True)
class Finding:
    """How an artifact stands now; `detail` says what is wrong, or why nothing can be said."""

    state: State
    detail: str = ""
    sha256: str | None = None


def check(artifact: Artifact, path: Path | str, node: Node, *, quick: bool = False) -> Finding:
    """Compare something with what a record says of it.

    Args:
        artifact: From the record.
        path: Where it should lie now.
        node: The record, whose plate holds the list of the images.
        quick: Compare images and pixels by their sizes, without reading them.
    """
    if artifact.kind == "images":
        return _check_images(artifact, path, node, quick=quick)
    if isinstance(path, Path) and not is_there(path):
        return Finding("missing", f"nothing at {path}")
    try:
        now = hash_of(artifact, path)
    except CellvimError as error:
        return Finding("changed", error.found)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Finding("changed", f"it cannot be read: {error}")
    if now != artifact.sha256:
        return Finding("changed", "its content is not what was recorded", now)
    problems = check_stored(path, quick=quick).problems if artifact.kind in ("plate", "pixels") else []
    # A plate is as its own lists say; its files may still not be as the lists say.
    return Finding("changed", problems[0], now) if problems else Finding("same", sha256=now)


def hash_of(artifact: Artifact, path: Path | str) -> str:
    """The hash that the kind of the artifact asks for, of what lies there now.

    Raises:
        CellvimError: It is damaged, or of a kind that is not known.
        OSError: It cannot be read.
    """
    match artifact.kind:
        case "plate":
            return PlateReader(path).fingerprint
        case "pixels":
            return PlateReader(path).pixels_fingerprint
        case "label images":
            return masks_sha256(Path(path), artifact.of)
    file = Path(path)
    if not file.is_file():
        # A device or a pipe, which a stranger's record may name, has no end.
        found = f"{file} is no file"
        raise InputError(found, hint="records name files that a run has read or written")
    return sha256_of_file(file)


def _check_images(artifact: Artifact, path: Path | str, node: Node, *, quick: bool) -> Finding:
    """Compare every image with the list in the plate that was made from them."""
    plates = [output.path for output in node.record.outputs if output.kind == "plate"]
    if not plates or isinstance(path, str):
        return Finding("not checked", "the record names no plate with the list of its images")
    location = node.located(plates[0])
    try:
        listed = manifest_sha256(load_table(PlateReader(location).companion, MANIFEST_FILE))
        if listed != artifact.sha256:
            return Finding("not checked", f"the list of images in {location} is not the recorded one", listed)
        if not path.is_dir():
            return Finding("missing", f"no folder {path}")
        found = Verification()
        check_sources(location, path, found, quick=quick)
    except CellvimError as error:
        state: State = "missing" if isinstance(location, Path) and is_there(location) else "not checked"
        return Finding(state, error.found)
    if not found.problems:
        return Finding("same", sha256=listed)
    state = "missing" if all(problem.endswith("is missing") for problem in found.problems) else "changed"
    more = f", and {len(found.problems) - 1} more" if len(found.problems) > 1 else ""
    return Finding(state, f"{found.problems[0]}{more}")
