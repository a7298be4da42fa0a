"""Tags of one page of a TIFF that may be damaged: parsed field by field, with bounds, before anything is allocated.

Source:
    TIFF 6.0 (1992), and the BigTIFF extension.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from cellvim.errors import InputError

MOST_ENTRIES = 4096
MOST_PAGES = 100_000
DESCRIPTION_BYTES = 1 << 16
# A header is read in pieces of this size: one for most files, two where the directory comes after the pixels.
PIECE_BYTES = 1 << 13


class Tag(IntEnum):
    """Tags that say how a page is stored."""

    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    DESCRIPTION = 270
    STRIP_OFFSETS = 273
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SAMPLE_FORMAT = 339


_WANTED = frozenset(map(int, Tag))
_TYPE_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}

Tags = Mapping[int, Sequence[int]]


class DamagedImageError(InputError):
    """An image file cannot be used. The message is the reason alone; the caller knows which file it was."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, hint="repair the file, or pass --on-missing skip-field or fill")


def read_tags(file: BinaryIO, size: int, page: int) -> tuple[Tags, bool]:
    """Read the tags of one page, and whether another page follows it.

    Args:
        file: Seekable.
        size: Its size in bytes.
        page: Number of the page, from 0.

    Raises:
        DamagedImageError: Not a TIFF, truncated, or without that page.
    """
    pieces = _Pieces(file, size)
    start, layout = _first_directory(pieces)
    seen = set()
    for _ in range(page):
        seen.add(start)
        _, start = _directory(pieces, start, layout)
        if start == 0 or start in seen or len(seen) > MOST_PAGES:
            reason = f"has no page {page} (counted from 0)"
            raise DamagedImageError(reason)
    entries, following = _directory(pieces, start, layout)
    tags = {
        tag: _values(pieces, layout.order, (kind, length, inline))
        for tag, kind, length, inline in struct.iter_unpack(layout.entry, entries)
        if tag in _WANTED and kind in _TYPE_CODES
    }
    return tags, following != 0


def read_description(file: BinaryIO, size: int, most_bytes: int) -> bytes:
    """Read tag ImageDescription of the first page, cut after `most_bytes`; empty if there is none.

    Raises:
        DamagedImageError: Not a TIFF, or truncated.
    """
    pieces = _Pieces(file, size)
    start, layout = _first_directory(pieces)
    entries, _ = _directory(pieces, start, layout)
    for tag, kind, length, inline in struct.iter_unpack(layout.entry, entries):
        if tag == Tag.DESCRIPTION and kind in (1, 2):
            return bytes(_values(pieces, layout.order, (2, min(length, most_bytes), inline), most_bytes))
    return b""


class _Pieces:
    """The bytes of a file. What is asked for lies close together, so a piece is kept.

    Args:
        file: Seekable.
        size: Its size in bytes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size
        self._start, self._piece = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """Read exactly `length` bytes.

        Raises:
            DamagedImageError: The file ends before.
        """
        if offset + length > self.size:
            reason = f"is truncated: needs byte {offset + length:,} of {self.size:,}"
            raise DamagedImageError(reason)
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._piece):
            self.file.seek(offset)
            self._start, self._piece, begin = offset, self.file.read(max(length, PIECE_BYTES)), 0
        content = self._piece[begin : begin + length]
        if len(content) < length:
            reason = "became shorter while it was read"
            raise DamagedImageError(reason)
        return content


@dataclass(frozen=True)
class _Layout:
    """How numbers are laid out in a file: byte order, and the formats of a directory."""

    count: str
    entry: str
    following: str
    order: str


def _first_directory(pieces: _Pieces) -> tuple[int, _Layout]:
    magic, size = pieces.read(0, min(16, pieces.size)), pieces.size
    order = {b"II": "<", b"MM": ">"}.get(magic[:2])
    if order is None or len(magic) < 16:
        raise DamagedImageError(_describe_start(magic, size))
    version = struct.unpack_from(f"{order}H", magic, 2)[0]
    if version == 42:
        start, formats = struct.unpack_from(f"{order}I", magic, 4)[0], ("H", "HHI4s", "I")
    elif version == 43:
        start, formats = struct.unpack_from(f"{order}Q", magic, 8)[0], ("Q", "HHQ8s", "Q")
    else:
        raise DamagedImageError(_describe_start(magic, size))
    count, entry, following = (f"{order}{part}" for part in formats)
    return start, _Layout(count, entry, following, order)


def _directory(pieces: _Pieces, start: int, layout: _Layout) -> tuple[bytes, int]:
    """Entries of the directory at `start`, undecoded, and where the next one begins (0: there is none)."""
    count_bytes = struct.calcsize(layout.count)
    count = struct.unpack(layout.count, pieces.read(start, count_bytes))[0]
    if not 1 <= count <= MOST_ENTRIES:
        reason = f"its header claims {count} entries"
        raise DamagedImageError(reason)
    entries = pieces.read(start + count_bytes, count * struct.calcsize(layout.entry))
    after = start + count_bytes + len(entries)
    link = pieces.read(after, struct.calcsize(layout.following))
    return entries, struct.unpack(layout.following, link)[0]


def _values(
    pieces: _Pieces, order: str, entry: tuple[int, int, bytes], most_bytes: int = DESCRIPTION_BYTES
) -> Sequence[int]:
    kind, length, inline = entry
    code = _TYPE_CODES[kind]
    wanted = length * struct.calcsize(code)
    if kind == 2:
        length = wanted = min(wanted, most_bytes)
    if wanted <= len(inline):
        content = inline[:wanted]
    else:
        offset = struct.unpack(f"{order}{'I' if len(inline) == 4 else 'Q'}", inline)[0]
        content = pieces.read(offset, wanted)
    # Bytes are numbers already; descriptions are long.
    return content if code == "B" else struct.unpack(f"{order}{length}{code}", content)


def _describe_start(magic: bytes, size: int) -> str:
    if size == 0:
        return "is empty"
    if not magic.strip(b"\0"):
        return "is filled with zeros"
    if magic.lstrip(b"\xef\xbb\xbf \r\n").startswith((b"<", b"{")):
        return f"is a text page, not a TIFF (starts with {magic!r})"
    return f"is not a TIFF (starts with {magic[:8]!r})"
