"""What every reader hands over: which file holds which plane of which plate."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.store import FieldKey

IMAGE_SUFFIXES = frozenset({".tif", ".tiff"})
# A screen of 1536 wells, 9 sites, 6 channels and 10 z planes is below a million.
MOST_FILES = 5_000_000


@dataclass(frozen=True)
class Plane:
    """One image file and its place on the plate.

    Attributes:
        path: The file; it need not exist, since an index may name files that were lost.
        field: Well and site.
        channel: The source's own key, for example ``1`` or ``DAPI``.
        z: The source's number of the z plane; None where it does not count them.
        t: The source's number of the time point; None where it does not count them.
        is_projection: The instrument projected several z planes into this one.
    """

    path: Path
    field: FieldKey
    channel: str
    z: int | None = None
    t: int | None = None
    is_projection: bool = False


@dataclass(frozen=True)
class SourcePlate:
    """One plate as its vendor left it.

    Attributes:
        name: Plate name, safe as a file name.
        folder: The source folder that was searched; recorded file names are relative to it.
        evidence: How the source was recognised, for example ``ImageXpress: found 9987.HTD``.
        planes: Every plane, also doubled and lost ones.
        stains: Channel key to the name the source gives it.
        pixel_size_um: Side of a pixel; None if the source does not say.
        declared_wells: Wells that the source's plan names, with or without images.
        notes: Oddities that do no harm, one line each.
    """

    name: str
    folder: Path
    evidence: str
    planes: tuple[Plane, ...]
    stains: Mapping[str, str] = field(default_factory=dict)
    pixel_size_um: float | None = None
    declared_wells: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class SourceReader(Protocol):
    """A reader of one vendor's folders."""

    def recognise(self, folder: Path, settings: IngestSettings) -> str | None:
        """Say what shows that the folder is of this kind; None if nothing does."""
        ...

    def read(self, folder: Path, settings: IngestSettings) -> list[SourcePlate]:
        """List the plates of a folder. No pixels are read.

        Raises:
            InputError: The folder holds no plate of this kind.
        """
        ...


def list_files(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the files below a folder with one of the suffixes, in any case, sorted.

    Raises:
        NotFoundError: No such folder.
        InputError: More files than any plate has.
    """
    if not folder.is_dir():
        raise NotFoundError(folder, expected="folder", hint="name the folder that holds the images")
    found = []
    for path in _walk(folder):
        if path.suffix.lower() in suffixes:
            found.append(path)
        if len(found) > MOST_FILES:
            message = f"{folder} holds more than {MOST_FILES:,} files"
            raise InputError(message, hint="ingest one plate at a time")
    return sorted(found)


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which ``w2`` comes before ``w10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.findall(r"\d+|\D+", text)]


def some(names: Sequence[object], shown: int = 3) -> str:
    """Name a few of many."""
    return ", ".join(str(name) for name in names[:shown]) + (", ..." if len(names) > shown else "")


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir():
            # Stores and hidden folders hold no vendor's images; links could lead round in circles.
            if not entry.is_symlink() and not entry.name.startswith(".") and entry.suffix != ".zarr":
                yield from _walk(entry)
        elif not entry.name.startswith("."):
            yield entry
