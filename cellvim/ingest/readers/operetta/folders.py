"""Where Harmony leaves what: the index of a measurement, and the files that it names.

``PLATE__2024-01-01T12_00_00-Measurement 1/Images/Index.idx.xml`` is an export, with the images beside the index.
Harmony 7 may put ``Index.xml`` above the images, and an archive has ``images/r01c01/`` beside ``index/NAME.xml``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath

from cellvim.errors import InputError
from cellvim.ingest.readers.plate_names import tell_apart
from cellvim.ingest.sources import Source
from cellvim.store import safe_name

# In order of preference, where a measurement has several. `ref` and `flex` belong to images that Harmony corrected.
INDEX_NAMES = (
    "index.idx.xml",
    "index.xml",
    "imageindex.columbusidx.xml",
    "index.ref.xml",
    "index.flex.xml",
)
_ROOT_ELEMENT = b"EvaluationInputData"
_HEAD_BYTES = 4096
_MEASUREMENT = re.compile(
    r"(?P<plate>.*?)(?:__\d{4}-\d\d-\d\dT[\d_]+)?[-_ ]*Measurement[-_ ]?(?P<number>\d+)\w*", re.IGNORECASE
)
# An archive has a folder for each well, which its index may leave out.
_WELL = re.compile(r"r\d+c\d+", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Measurement:
    """One measurement of one plate.

    Attributes:
        index: The index to be read.
        home: Folder of the whole measurement.
        root: The part of it that was searched for images.
        unused: Other indexes of the same measurement.
    """

    index: Path
    home: Path
    root: Path
    unused: tuple[Path, ...] = ()


def find_measurements(source: Source) -> list[Measurement]:
    """List the measurements of a source by their indexes: those below it or, if there are none, the one beside."""
    if source.path.is_file():
        is_index = source.path.suffix.lower() == ".xml" and _rank(source.path) is not None
        return _by_home([source.path] if is_index else [], home_of(source.folder))
    below = [path for path in source.files(frozenset({".xml"})) if _rank(path) is not None]
    if below or not source.files():
        return _by_home(below, source.folder)
    return _by_home(_beside(source.folder.resolve()), source.folder)


def home_of(folder: Path) -> Path:
    """Folder of the measurement that a folder of images, or of an index, belongs to."""
    folder = folder.resolve()
    while folder.name.lower() in {"images", "index", "flex"}:
        folder = folder.parent
    return folder


def plate_of(home: Path) -> str:
    """Plate in the name of a measurement's folder; the folder's own name if it is not Harmony's."""
    match = _MEASUREMENT.fullmatch(home.name)
    return (match["plate"] if match else "") or home.name


def name_plates(named: Sequence[tuple[Path, str]], wanted: str | None = None) -> list[str]:
    """Name plates by what their sources call them; measurements of one plate are told apart by their numbers.

    Args:
        named: Folder of each measurement, and its plate's name.
        wanted: The `--plate` setting, for a plate whose names have no letter that is safe in a file name.
    """
    safe = [(home, _safe([name, home.name, wanted or ""])) for home, name in named]
    names = [name for _, name in safe]
    told = []
    for home, name in safe:
        match = _MEASUREMENT.fullmatch(home.name)
        is_alone = names.count(name) == 1
        told.append(
            (home, name if is_alone or match is None else f"{name}-Measurement{int(match['number'])}")
        )
    return tell_apart(told)


def sort_files(files: Iterable[Path], roots: Sequence[Path]) -> dict[Path, list[Path]]:
    """Give every file to the innermost of the folders that holds it; files in none of them are left out."""
    found: dict[Path, list[Path]] = {root: [] for root in roots}
    known: dict[Path, Path | None] = {}
    for path in files:
        folder = path.parent
        if folder not in known:
            known[folder] = next((above for above in (folder, *folder.parents) if above in found), None)
        root = known[folder]
        if root is not None:
            found[root].append(path)
    return found


class Locator:
    """Finds the files that an index names, among those that were found in the source and nowhere else."""

    def __init__(self, measurement: Measurement, folder: Path, files: Iterable[Path]) -> None:
        self._index = measurement.index
        start = 0 if folder == Path() else len(str(folder)) + 1
        self._files = {str(path)[start:]: path for path in files}
        inside, top = measurement.index.parent.resolve(), folder.resolve()
        base = inside.relative_to(top).parts if inside.is_relative_to(top) else ()
        places = [base, (*base, "Images"), (*base[:-1], "images"), ()]
        self._bases = ["".join(f"{part}/" for part in place) for place in dict.fromkeys(places)]
        # The folder given may be the images' own, with the index above it.
        self._given = top.name.lower()

    def __call__(self, url: str) -> Path | None:
        """Path of a file as the index names it; None if it is not there.

        Raises:
            InputError: The name leads out of the measurement.
        """
        *folders, name = self._parts(url)
        below = [folders]
        if folders and folders[0].lower() == self._given:
            below.append(folders[1:])
        if well := _WELL.match(name):
            below.append([*folders, well[0]])
        tried = [base + "/".join((*place, name)) for place in below for base in self._bases]
        found = next((self._files[path] for path in tried if path in self._files), None)
        if found is None:
            found = next((self._lower[path.lower()] for path in tried if path.lower() in self._lower), None)
        return found

    def lost(self, url: str) -> Path:
        """Where a file should be that is not there."""
        return self._index.parent.joinpath(*self._parts(url))

    def _parts(self, url: str) -> tuple[str, ...]:
        relative = PureWindowsPath(url)
        if relative.anchor or ".." in relative.parts or not relative.name:
            found = f"{self._index} names {url!r}, which lies outside of the measurement"
            raise InputError(found, hint="do not trust this index")
        return relative.parts

    @cached_property
    def _lower(self) -> Mapping[str, Path]:
        """Windows does not tell `.TIF` from `.tif`."""
        return {name.lower(): path for name, path in self._files.items()}


def _safe(candidates: Sequence[str]) -> str:
    """The first that can name a plate."""
    *better, last = candidates
    for name in better:
        with suppress(InputError):
            return safe_name(name)
    return safe_name(last or candidates[0])


def _rank(path: Path) -> int | None:
    """Preference of an index among those of its measurement, from 0; None for any other file."""
    if path.name.lower() in INDEX_NAMES:
        return INDEX_NAMES.index(path.name.lower())
    is_archive = path.parent.name.lower() == "index" and _begins_as_index(path)
    return len(INDEX_NAMES) if is_archive else None


def _beside(folder: Path) -> list[Path]:
    """Indexes above a folder of images, or in the folder that archives have for them."""
    found = []
    for place in (folder.parent, folder.parent / "index", folder.parent / "Index"):
        try:
            found += sorted(
                path for path in place.iterdir() if path.suffix.lower() == ".xml" and path.is_file()
            )
        except OSError:
            continue
    return [path for path in found if _rank(path) is not None and _begins_as_index(path)]


def _begins_as_index(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _ROOT_ELEMENT in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _by_home(indexes: Iterable[Path], folder: Path) -> list[Measurement]:
    homes: dict[Path, list[Path]] = {}
    for path in indexes:
        homes.setdefault(home_of(path.parent), []).append(path)
    top = folder.resolve()
    measurements = []
    for home, paths in homes.items():
        # The deeper of two of one name lies with the images.
        ordered = sorted(paths, key=lambda path: (_rank(path) or 0, -len(path.parts), path.name))
        root = folder / home.relative_to(top) if home.is_relative_to(top) else folder
        measurements.append(Measurement(ordered[0], home, root, tuple(ordered[1:])))
    return measurements
