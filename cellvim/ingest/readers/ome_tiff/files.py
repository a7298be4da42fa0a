"""OME-XML where it lies: in the first page of a TIFF, or in a companion file beside several."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from cellvim.errors import InputError
from cellvim.ingest.images.tiff_tags import DamagedImageError, read_description
from cellvim.ingest.readers.ome_tiff.xml import MOST_XML_BYTES, Block, OmeDocument, OmeImage, parse_ome
from cellvim.ingest.sources import Source
from cellvim.provenance import sha256_of

COMPANIONS = (".companion.ome", ".ome.xml")
_GLANCE_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """A file with OME-XML, and what that says.

    Attributes:
        sha256: Of the OME-XML.
    """

    path: Path
    document: OmeDocument
    sha256: str = ""


@dataclass
class OmeFiles:
    """All OME-XML of a source.

    Attributes:
        holders: One for each set of files that describe each other.
        strangers: TIFFs without OME-XML that no other file's names.
    """

    holders: list[Holder] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)


def collect(source: Source) -> OmeFiles:
    """Read each OME-XML of a source once: the files of a set may all carry the same.

    Raises:
        InputError: An OME-XML is damaged, or its companion is lost.
    """
    found, known = OmeFiles(), set[Path]()
    for path in _candidates(source):
        if path in known:
            continue
        content = _companion(path) if is_companion(path) else _embedded(path)
        if content is None:
            found.strangers.append(path)
            continue
        holder = Holder(path, parse_ome(content, str(path)), sha256_of(content))
        if holder.document.metadata_file:
            companion = _below(path, holder.document.metadata_file)
            if companion in known:
                found.strangers.append(path)
                continue
            holder = _follow(path, companion)
        found.holders.append(holder)
        known |= {holder.path, *files_of(holder)}
    found.strangers = [path for path in found.strangers if path not in known]
    return found


def starts_with_ome(path: Path) -> bool:
    """Whether the first page of a file begins with OME-XML; no for whatever cannot be read."""
    try:
        return b"<OME" in _description(path, _GLANCE_BYTES)
    except (DamagedImageError, OSError):
        return False


def is_companion(path: Path) -> bool:
    return path.name.lower().endswith(COMPANIONS)


def read_document(path: Path) -> OmeDocument | None:
    """OME-XML in a TIFF; None if it has none or cannot be read.

    Raises:
        InputError: The OME-XML is damaged.
    """
    content = _embedded(path)
    return None if content is None else parse_ome(content, str(path))


def file_of(block: Block, holder: Holder) -> Path:
    """Find the file that holds a block of pages; it need not exist.

    A file knows itself by its UUID, also when somebody has renamed it since.

    Raises:
        InputError: The name leads out of the folder, or the companion names no file.
    """
    is_own = block.uuid is None or (block.uuid == holder.document.uuid and block.uuid != "")
    if is_own and not is_companion(holder.path):
        return holder.path
    if block.file_name:
        return _below(holder.path, block.file_name)
    if is_companion(holder.path):
        found = f"{holder.path} does not say which file holds the pages of an image"
        raise InputError(found, hint="write the OME-TIFF again")
    return _below(holder.path, f"{(block.uuid or '').rpartition(':')[2] or 'unnamed'}.ome.tif")


def files_of(holder: Holder) -> set[Path]:
    """Every file that a document's images lie in."""
    images: Sequence[OmeImage] = list(holder.document.images.values())
    return {file_of(block, holder) for image in images for block in image.blocks}


def _candidates(source: Source) -> list[Path]:
    """Companions first, as they say all there is to say of their files."""
    if source.path.is_file():
        return [source.path]
    companions = [path for path in source.files(frozenset({".ome", ".xml"})) if is_companion(path)]
    return [*companions, *source.files()]


def _follow(path: Path, companion: Path) -> Holder:
    if not companion.is_file():
        found = f"{path} says that its metadata are in {companion.name}, which is not there"
        raise InputError(found, hint="copy the companion file beside the images")
    document = parse_ome(_companion(companion), str(companion))
    if document.metadata_file:
        found = f"{companion} refers to yet another file for its metadata"
        raise InputError(found, hint="write the OME-TIFF again")
    return Holder(companion, document)


def _companion(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_XML_BYTES + 1)
    except OSError as error:
        found = f"{path} cannot be read: {error.strerror}"
        raise InputError(found, hint="check the file") from error
    return _bounded(content, path)


def _embedded(path: Path) -> bytes | None:
    try:
        content = _description(path, MOST_XML_BYTES + 1)
    except (DamagedImageError, OSError):
        # Without metadata it belongs to nothing; what is damaged and named elsewhere is found by preflight.
        return None
    return _bounded(content, path) if b"<OME" in content[:_GLANCE_BYTES] else None


def _bounded(content: bytes, path: Path) -> bytes:
    if len(content) > MOST_XML_BYTES:
        found = f"{path} holds more than {MOST_XML_BYTES >> 20} MB of OME-XML"
        raise InputError(found, hint="ingest one plate at a time")
    return content


def _description(path: Path, most_bytes: int) -> bytes:
    # Not waiting for anybody to write into a named pipe.
    with open(
        path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
    ) as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode):
            return b""
        return read_description(file, state.st_size, most_bytes)


def _below(holder: Path, name: str) -> Path:
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or PureWindowsPath(name).anchor or ".." in relative.parts or "\0" in name:
        found = f"{holder} names the file {name[:200]!r}, which is none beside it"
        raise InputError(found, hint="do not trust this file")
    path = holder.parent / relative
    if len(relative.parts) > 1 and not path.parent.resolve().is_relative_to(holder.parent.resolve()):
        found = f"{holder} names the file {name[:200]!r}, which leads elsewhere"
        raise InputError(found, hint="copy the files of a set into one folder")
    return path
