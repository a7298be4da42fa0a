"""Find the images that a table names, also when they have moved to another machine since."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from cellvim.errors import InputError
from cellvim.ingest.sources import IMAGE_SUFFIXES, ImagePart, Plane, Source, some

_FAR = ("http://", "https://", "s3://", "gs://", "ftp://", "az://")


@dataclass(frozen=True)
class Located:
    """Where an image lies.

    Attributes:
        path: A file that need not exist.
        agreement: Number of trailing parts of its path that are as named; 0 if nothing was found.
        is_elsewhere: By an absolute path, outside of the source.
    """

    path: Path
    agreement: int
    is_elsewhere: bool = False


class Locator:
    """Looks for an image as it was named; else for the file whose path ends most alike; else by its name.

    Args:
        source: Only files below its folder are looked through.
        home: The folder that relative names start from.
    """

    def __init__(self, source: Source, home: Path) -> None:
        self._home = home
        self._source = source
        self._by_name: dict[str, list[Path]] | None = None

    def __call__(self, text: str) -> Located:
        """Locate an image by its path, in the spelling of any system, or by a ``file:`` URL.

        Raises:
            InputError: The name is no path, leads out of the source, or fits several files equally well.
        """
        parts, is_absolute = _parts(text)
        if is_absolute:
            path = Path("/", *parts)
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                is_inside = path.is_relative_to(self._source.folder.absolute())
                return Located(path, len(parts) + 1, is_elsewhere=not is_inside)
        return self._most_alike(parts, text) or self._nowhere(parts, text)

    def all_of(self, texts: Iterable[str]) -> dict[str, Located]:
        """Locate many images. A file is found for one name only: the one that its path agrees with best.

        Raises:
            InputError: See above.
        """
        located = {text: self(text) for text in texts}
        claims: dict[Path, dict[tuple[str, ...], int]] = {}
        for text, found in located.items():
            claims.setdefault(found.path, {})[_identity(text)] = found.agreement
        for text, found in located.items():
            rivals = [agreement for name, agreement in claims[found.path].items() if name != _identity(text)]
            if rivals and found.agreement <= max(rivals):
                located[text] = self._nowhere(_parts(text)[0], text)
        return located

    def _most_alike(self, parts: Sequence[str], text: str) -> Located | None:
        if self._by_name is None:
            self._by_name = {}
            for path in self._source.files():
                self._by_name.setdefault(path.name.lower(), []).append(path)
        candidates = self._by_name.get(parts[-1].lower(), [])
        exact = self._home.joinpath(*parts)
        if exact in candidates:
            return Located(exact, len(parts) + 1)
        if len(candidates) > 1:
            agreements = [_agreement(path, parts) for path in candidates]
            candidates = [
                path for path, same in zip(candidates, agreements, strict=True) if same == max(agreements)
            ]
        if len(candidates) > 1:
            places = some([str(path) for path in candidates])
            found = (
                f"{text!r} is not where it should be, and could be any of {len(candidates)} files: {places}"
            )
            raise InputError(found, hint="ingest the folder of one plate at a time")
        return Located(candidates[0], _agreement(candidates[0], parts)) if candidates else None

    def _nowhere(self, parts: Sequence[str], text: str) -> Located:
        path = self._home.joinpath(*parts)
        # The listing follows no links to folders: what is there all the same may lie anywhere.
        if path.is_file() and not path.resolve().is_relative_to(self._home.resolve()):
            raise _outside(text)
        return Located(path, 0)


def refuse_shared(plates: Mapping[str, Iterable[Plane]], index: Path) -> None:
    """Refuse an index in which one image stands for two plates, wells, channels, depths or times.

    Raises:
        InputError: With the image and both places.
    """
    first: dict[ImagePart, tuple[str, Plane]] = {}
    for name, planes in plates.items():
        for plane in planes:
            plate, other = first.setdefault(plane.image, (name, plane))
            if (plate, *_place(other)) != (name, *_place(plane)):
                places = f"for {plate} {_describe(other)} and for {name} {_describe(plane)}"
                found = f"{index} names {plane.image.name} twice: {places}"
                raise InputError(found, hint="name each image once: correct the line that is wrong")


def _parts(text: str) -> tuple[list[str], bool]:
    """Parts of a path without its anchor, and whether it is an absolute one of this system."""
    low = text.lower()
    if low.startswith(_FAR):
        found = f"{text!r} lies on a server, only files on this machine are read"
        raise InputError(
            found, hint="download the images, and ingest the folder that holds them and the table"
        )
    if low.startswith("file:"):
        text = unquote(text[5:])
        text = text[2:] if text.startswith("///") else text
    text = text.replace("\\", "/")
    path = PurePosixPath(text)
    parts = [part for part in path.parts if part not in ("/", "//")]
    is_drive = bool(parts) and len(parts[0]) == 2 and parts[0][1] == ":" and parts[0][0].isalpha()
    parts = parts[1:] if is_drive else parts
    if not parts or "\0" in text or any(len(part.encode(errors="replace")) > 255 for part in parts):
        found = f"{text[:200]!r} is no name of a file"
        raise InputError(found, hint="correct the table")
    if ".." in parts:
        raise _outside(text)
    return parts, path.is_absolute() and not is_drive


def _identity(text: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in _parts(text)[0])


def _outside(text: str) -> InputError:
    found = f"{text!r} leads out of the folder that it starts from"
    return InputError(found, hint="name images by paths below the table's folder, or by absolute ones")


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
