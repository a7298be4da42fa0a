"""Find the images that a table names, also when they have moved to another machine since."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from cellvim.errors import InputError
from cellvim.ingest.sources import IMAGE_SUFFIXES, ImagePart, Plane, Source, some

_FAR = ("http://", "https://", "s3://", "gs://", "ftp://", "az://")
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Located:
    """Where an image lies.

    Attributes:
        path: A file that need not exist.
        agreement: Number of trailing parts of its path that are as named; 0 if nothing was found.
        is_as_named: It lies just where its name says; it was not found by the end of its path.
    """

    path: Path
    agreement: int = 0
    is_as_named: bool = True


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder as a table spells it.

    Attributes:
        parts: The names on its way, without drive or root.
        is_absolute: It starts from a drive or a root.
        elsewhere: An absolute folder that is there on this machine, None if there is none.
        below: Where it would be if it started from the table's own folder.
        has_below: There is such a folder.
    """

    parts: tuple[str, ...]
    is_absolute: bool
    elsewhere: Path | None
    below: Path
    has_below: bool


class Locator:
    """Looks for an image as it was named; else for the file whose path ends most alike; else by its name.

    Args:
        source: Only files below its folder are looked through.
        home: The folder that relative names start from.
    """

    def __init__(self, source: Source, home: Path) -> None:
        self._source = source
        self._home = home
        self._folders: dict[tuple[str, bool], _Folder] = {}
        self._by_name: dict[str, list[Path]] | None = None

    def all_of(self, texts: Iterable[str]) -> dict[str, Located]:
        """Locate images by their paths, in the spelling of any system, or by URLs.

        What lies on a server is looked for among the files here, as others may have downloaded it.

        A file is found for one name only, the one that its path agrees with best: plates repeat file names.

        Raises:
            InputError: A name is no path, leads to an image out of the source, or fits several files equally well.
        """
        located = {text: self._locate(text) for text in texts}
        far = [text for text in located if _is_far(text)]
        if far and not any(located[text].agreement for text in far):
            message = f"{far[0]!r} lies on a server, and no file below {self._source.folder} is called so"
            raise InputError(message, hint="download the images, and name their folder: --images DIR")
        claims: dict[Path, list[str]] = {}
        for text, found in located.items():
            claims.setdefault(found.path, []).append(text)
        for rivals in claims.values():
            if len(rivals) > 1:
                self._settle(rivals, located)
        return located

    def _settle(self, rivals: Sequence[str], located: dict[str, Located]) -> None:
        names = {text: self._identity(text) for text in rivals}
        best = max(located[text].agreement for text in rivals)
        winners = {names[text] for text in rivals if located[text].agreement == best}
        for text in rivals:
            if len(winners) > 1 or names[text] not in winners:
                located[text] = self._nowhere(text)

    def _locate(self, text: str) -> Located:
        folder, name = self._split(text)
        path = None if folder.elsewhere is None else folder.elsewhere / name
        is_there = path is not None and path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
        if path is not None and is_there and path.resolve().is_relative_to(self._source.folder.resolve()):
            return Located(path, len(folder.parts) + 2)
        found = self._most_alike(text, folder, name)
        if found is None and is_there:
            # A stranger's table must not bring in whatever lies on this machine.
            raise _elsewhere(text, self._source.folder)
        return found or self._nowhere(text)

    def _most_alike(self, text: str, folder: _Folder, name: str) -> Located | None:
        candidates = self._listed().get(name.lower(), [])
        if not candidates:
            return None
        exact = folder.below / name
        if exact in candidates:
            return Located(exact, len(folder.parts) + 2, is_as_named=not folder.is_absolute)
        agreements = [_agreement(path, (*folder.parts, name)) for path in candidates]
        best = [path for path, same in zip(candidates, agreements, strict=True) if same == max(agreements)]
        if len(best) > 1:
            places = some([str(path) for path in best])
            found = f"{text!r} is not where it should be, and could be any of {len(best)} files: {places}"
            raise InputError(found, hint="ingest the folder of one plate at a time")
        return Located(best[0], max(agreements), is_as_named=False)

    def _listed(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = {}
            for path in self._source.files():
                self._by_name.setdefault(path.name.lower(), []).append(path)
        return self._by_name

    def _nowhere(self, text: str) -> Located:
        folder, name = self._split(text)
        path = folder.below / name
        # The listing follows no links to folders: what is there all the same may lie anywhere.
        if folder.has_below and path.is_file() and not path.resolve().is_relative_to(self._home.resolve()):
            raise _outside(text)
        return Located(path)

    def _identity(self, text: str) -> tuple[str, ...]:
        folder, name = self._split(text)
        return tuple(part.lower() for part in (*folder.parts, name))

    def _split(self, text: str) -> tuple[_Folder, str]:
        is_far = _is_far(text)
        if is_far:
            text = "/" + unquote(text.partition("://")[2])
        elif text[:5].lower() == "file:":
            local = unquote(text[5:])
            text = local[2:] if local.startswith("///") else local
        head, slash, name = text.replace("\\", "/").rpartition("/")
        if name == "..":
            raise _outside(text)
        if not _is_name(name):
            raise _nameless(text)
        key = (head + slash, is_far)
        if key not in self._folders:
            self._folders[key] = self._folder(head + slash, text, is_far=is_far)
        return self._folders[key], name

    def _folder(self, head: str, text: str, *, is_far: bool) -> _Folder:
        path = PurePosixPath(head)
        parts = [part for part in path.parts if part not in ("/", "//")]
        is_drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ":" and parts[0][0].isalpha()
        parts = parts[1:] if is_drive else parts
        if ".." in parts:
            raise _outside(text)
        if not all(map(_is_name, parts)):
            raise _nameless(text)
        root = Path("/", *parts)
        is_here = path.is_absolute() and not is_drive and not is_far
        elsewhere = root if is_here and root.is_dir() else None
        below = self._home.joinpath(*parts)
        return _Folder(tuple(parts), path.is_absolute() or is_drive, elsewhere, below, below.is_dir())


def refuse_shared(plates: Mapping[str, Iterable[Plane]], index: Path) -> None:
    """Refuse an index in which one image stands for two plates, wells, channels, depths or times.

    Raises:
        InputError: With the image and both places.
    """
    first: dict[ImagePart, tuple[str, Plane]] = {}
    for name, planes in plates.items():
        for plane in planes:
            plate, other = first.setdefault(plane.image, (name, plane))
            if other is not plane and (plate, *_place(other)) != (name, *_place(plane)):
                places = f"for {plate} {_describe(other)} and for {name} {_describe(plane)}"
                found = f"{index} names {plane.image.name} twice: {places}"
                raise InputError(found, hint="name each image once: correct the line that is wrong")


def _is_far(text: str) -> bool:
    return text[:8].lower().startswith(_FAR)


def _is_name(part: str) -> bool:
    return part not in ("", ".") and "\0" not in part and len(part.encode(errors="replace")) <= _LONGEST_NAME


def _nameless(text: str) -> InputError:
    found = f"{text[:200]!r} is no name of a file"
    return InputError(found, hint="correct the table")


def _outside(text: str) -> InputError:
    found = f"{text!r} leads out of the folder that it starts from"
    return InputError(found, hint="name images by paths below the table's folder")


def _elsewhere(text: str, folder: Path) -> InputError:
    found = f"{text!r} lies outside of the source {folder}"
    return InputError(found, hint="name the folder that holds the images: --images DIR")


def _agreement(path: Path, parts: Sequence[str]) -> int:
    count = 0
    for own, named in zip(reversed(path.parts), reversed(parts), strict=False):
        if own.lower() != named.lower():
            break
        count += 1
    return count


def _place(plane: Plane) -> tuple[object, ...]:
    return plane.field, plane.channel, plane.z, plane.t


def _describe(plane: Plane) -> str:
    depth = "" if plane.z is None else f" z {plane.z}"
    time = "" if plane.t is None else f" time point {plane.t}"
    return f"{plane.field} {plane.channel}{depth}{time}"
