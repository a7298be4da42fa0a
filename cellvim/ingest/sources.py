"""What every reader is given, and what it hands over: which image holds which plane of which plate."""

import os
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


@dataclass(frozen=True, order=True)
class ImagePart:
    """Where the pixels of one plane lie.

    Attributes:
        path: An image file, or the folder of a zarr array. It need not exist: an index may name what was lost.
        part: Where in it: empty if the plane is all there is, one number for the page of a TIFF (from 0), the
            index of all axes but the last two for a zarr array.
    """

    path: Path
    part: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """For messages."""
        return self.path.name + (f" part {'/'.join(map(str, self.part))}" if self.part else "")


@dataclass(frozen=True)
class Plane:
    """One image and its place on the plate.

    Attributes:
        path: See `ImagePart`.
        field: Well and site.
        channel: The source's own key, for example ``1`` or ``DAPI``.
        z: The source's number of the z plane; None where it does not count them.
        t: The source's number of the time point; None where it does not count them.
        is_projection: The instrument projected several z planes into this one.
        part: See `ImagePart`.
    """

    path: Path
    field: FieldKey
    channel: str
    z: int | None = None
    t: int | None = None
    is_projection: bool = False
    part: tuple[int, ...] = ()

    @property
    def image(self) -> ImagePart:
        return ImagePart(self.path, self.part)


@dataclass(frozen=True)
class Wavelengths:
    """Centres of a channel's excitation and emission in nanometres; None where the source does not say."""

    excitation_nm: float | None = None
    emission_nm: float | None = None


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
        wavelengths: Channel key to its wavelengths, where the source says.
        acquired: When the acquisition began, ISO 8601; None if the source does not say.
        barcode: The plate's own name in the source, as plate maps may spell it; `name` if None.
        thumbnails: Number of small copies of images in its folder, which are no planes.
        described_by: Files that say where each plane belongs, or what it shows; their sha256 is recorded.
        descriptions: The same for texts inside of images: what they are, to their sha256.
    """

    name: str
    folder: Path
    evidence: str
    planes: tuple[Plane, ...]
    stains: Mapping[str, str] = field(default_factory=dict)
    pixel_size_um: float | None = None
    declared_wells: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    wavelengths: Mapping[str, Wavelengths] = field(default_factory=dict)
    acquired: str | None = None
    barcode: str | None = None
    thumbnails: int = 0
    described_by: tuple[Path, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)


class Source:
    """One source as the user named it, a folder or a file. Its files are listed once, for all readers.

    Attributes:
        path: As named.
        folder: Where its images are looked for: the folder itself, `images`, or the folder that the file lies in.

    Args:
        path: As named.
        images: Folder of the images, where a file that describes them lies elsewhere.
    """

    def __init__(self, path: Path, images: Path | None = None) -> None:
        self.path = path
        self.folder = path if path.is_dir() else images or path.parent
        self._by_suffix: dict[str, list[Path]] | None = None

    def files(self, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
        """Files below the folder with one of the suffixes (lower case; found in any case), sorted.

        Raises:
            InputError: More files than any plate has.
        """
        if self._by_suffix is None:
            self._by_suffix = {}
            for path in list_files(self.folder, None):
                self._by_suffix.setdefault(path.suffix.lower(), []).append(path)
        return sorted(path for suffix in sorted(suffixes) for path in self._by_suffix.get(suffix, ()))


class SourceReader(Protocol):
    """A reader of one vendor's folders."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:
        """Say what shows that the source is of this kind, for example ``ImageXpress: found 9987.HTD``.

        None if nothing does. Must be quick, and must not fail on damaged files.
        """
        ...

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        """List the plates of a source. No pixels are read.

        Raises:
            InputError: The source holds no plate of this kind, or its index is damaged.
        """
        ...


def list_files(folder: Path, suffixes: frozenset[str] | None = IMAGE_SUFFIXES) -> list[Path]:
    """List the files below a folder with one of the suffixes, in any case, sorted; all files if None.

    Raises:
        NotFoundError: No such folder.
        InputError: More files than any plate has, or an image whose name cannot be written down.
    """
    if not folder.is_dir():
        raise NotFoundError(folder, expected="folder", hint="name the folder that holds the images")
    found = []
    for path in _walk(folder):
        if suffixes is None or path.suffix.lower() in suffixes:
            found.append(path)
        if len(found) > MOST_FILES:
            message = f"{folder} holds more than {MOST_FILES:,} files"
            raise InputError(message, hint="ingest one plate at a time")
        if path.suffix.lower() in IMAGE_SUFFIXES and not _is_text(str(path)):
            message = f"{os.fsencode(path)!r} has letters in its name that are not UTF-8"
            raise InputError(message, hint="rename it; convmv does so for whole folders")
    return sorted(found)


def natural(text: str) -> list[tuple[int, int | str]]:
    """Sort key under which ``w2`` comes before ``w10``; ``1`` and ``01`` are always in one order, too."""
    parts = re.findall(r"\d+|\D+", text)
    return [*((0, int(part)) if part.isdecimal() else (1, part) for part in parts), (-1, text)]


def some(names: Sequence[object], shown: int = 3) -> str:
    """Name a few of many."""
    return ", ".join(str(name) for name in names[:shown]) + (", ..." if len(names) > shown else "")


def _is_text(name: str) -> bool:
    """Whether a name is more than bytes: tables, JSON and terminals take text only."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _walk(folder: Path) -> Iterator[Path]:
    # scandir tells folders from files without a further question to the file system for each.
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                if _can_be_read(entry):
                    yield folder / entry.name
            # Stores hold no vendor's images; links could lead round in circles.
            elif not entry.is_symlink() and not entry.name.endswith(".zarr"):
                yield from _walk(folder / entry.name)


def _can_be_read(entry: os.DirEntry[str]) -> bool:
    """Whether a reader may open it: a pipe would let it wait. A link to nothing, or an odd image, others will name."""
    return (
        entry.is_file() or entry.name.lower().endswith(tuple(IMAGE_SUFFIXES)) or not Path(entry.path).exists()
    )
