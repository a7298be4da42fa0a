"""Read grey planes from a TIFF that may be damaged, without trusting a single number in it.

The header is parsed here, field by field, with bounds, before anything is allocated; tifffile decodes.

Source:
    TIFF 6.0 (1992), and the BigTIFF extension.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from cellvim.errors import InputError

MOST_PIXELS = 2**28
MOST_ENTRIES = 4096
MOST_PAGES = 100_000
MOST_RATIO = 10_000
DESCRIPTION_BYTES = 1 << 16

# What tifffile and the codecs have been seen to raise on damaged files, short of running out of memory.
DECODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _DESCRIPTION = 256, 257, 258, 259, 270
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_SAMPLE_FORMAT = 339
_WANTED = frozenset(
    (
        *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _DESCRIPTION),
        *(_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES),
        *(_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES, _SAMPLE_FORMAT),
    )
)
_TYPE_CODES = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}
_KINDS = {1: "u", 2: "i", 3: "f"}

Tags = Mapping[int, tuple[int, ...]]


class DamagedImageError(InputError):
    """An image file cannot be used. The message is the reason alone; the caller knows which file it was."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, hint="repair the file, or pass --on-missing skip-field or fill")


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF says about itself.

    Attributes:
        dtype: For example ``uint16``; also types that ingest refuses, such as ``float32``.
        description: Tag ImageDescription, cut after 64 kB.
    """

    height: int
    width: int
    dtype: str
    description: str


def read_header(path: Path, page: int | None = None) -> TiffHeader:
    """Check one page of a file against the file's size.

    Args:
        path: The file.
        page: Number of the page, from 0; None for the only one.

    Raises:
        DamagedImageError: Not a TIFF, truncated, of several pages or colours, or of impossible size.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return parse_header(file, size, page)
    except FileNotFoundError as error:
        reason = "the file is not there"
        raise DamagedImageError(reason) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise DamagedImageError(reason) from error


def parse_header(file: BinaryIO, size: int, page: int | None = None) -> TiffHeader:
    """Parse and check one page; `size` is the file's size in bytes. See `read_header`."""
    tags, has_more_pages = _read_tags(file, size, page or 0)
    if has_more_pages and page is None:
        reason = "holds several pages, expected one plane per file"
        raise DamagedImageError(reason)
    height, width = _one(tags, _HEIGHT), _one(tags, _WIDTH)
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        reason = f"claims {width} x {height} pixels, at most {MOST_PIXELS:,} are read"
        raise DamagedImageError(reason)
    if tags.get(_SAMPLES, (1,))[0] != 1:
        reason = f"holds {tags[_SAMPLES][0]} colours per pixel, expected one grey channel"
        raise DamagedImageError(reason)
    bits = tags.get(_BITS, (1,))[0]
    kind = _KINDS.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "other")
    _check_data(tags, size, row_bits=width * bits, height=height, width=width)
    text = bytes(value & 255 for value in tags.get(_DESCRIPTION, ()))
    return TiffHeader(height, width, _dtype_name(kind, bits), text.decode("utf-8", errors="replace"))


def decode(content: BinaryIO, size: int, page: int | None = None) -> NDArray[np.unsignedinteger]:
    """Decode one page of an open TIFF of `size` bytes.

    Raises:
        DamagedImageError: See `read_header`; or the compressed data are damaged; or every pixel is zero.
    """
    header = parse_header(content, size, page)
    content.seek(0)
    try:
        with tifffile.TiffFile(content) as file:
            pixels = file.pages[page or 0].asarray(maxworkers=1)
    except DECODE_ERRORS as error:
        reason = f"cannot be decoded: {type(error).__name__}: {str(error).strip() or 'no reason given'}"
        raise DamagedImageError(reason.splitlines()[0][:200]) from error
    if pixels.shape != (header.height, header.width) or pixels.dtype.name != header.dtype:
        reason = f"decodes to {pixels.shape} {pixels.dtype}, its header says {header}"
        raise DamagedImageError(reason)
    if not pixels.any():
        reason = "every pixel is zero"
        raise DamagedImageError(reason)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class _Layout:
    """How numbers are laid out in a file: byte order, and the formats of a directory."""

    count: str
    entry: str
    following: str
    order: str


def _read_tags(file: BinaryIO, size: int, page: int) -> tuple[Tags, bool]:
    """Tags of one page, and whether another page follows it."""
    start, layout = _first_directory(file, size)
    seen = set()
    for _ in range(page):
        seen.add(start)
        _, start = _directory(file, start, size, layout)
        if start == 0 or start in seen or len(seen) > MOST_PAGES:
            reason = f"has no page {page} (counted from 0)"
            raise DamagedImageError(reason)
    entries, following = _directory(file, start, size, layout)
    tags = {
        tag: _values(file, size, layout.order, (kind, length, inline))
        for tag, kind, length, inline in struct.iter_unpack(layout.entry, entries)
        if tag in _WANTED and kind in _TYPE_CODES
    }
    return tags, following != 0


def _first_directory(file: BinaryIO, size: int) -> tuple[int, _Layout]:
    file.seek(0)
    magic = file.read(16)
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


def _directory(file: BinaryIO, start: int, size: int, layout: _Layout) -> tuple[bytes, int]:
    """Entries of the directory at `start`, undecoded, and where the next one begins (0: there is none)."""
    count_bytes = struct.calcsize(layout.count)
    count = struct.unpack(layout.count, _read(file, start, count_bytes, size))[0]
    if not 1 <= count <= MOST_ENTRIES:
        reason = f"its header claims {count} entries"
        raise DamagedImageError(reason)
    entries = _read(file, start + count_bytes, count * struct.calcsize(layout.entry), size)
    after = start + count_bytes + len(entries)
    following = struct.unpack(layout.following, _read(file, after, struct.calcsize(layout.following), size))[
        0
    ]
    return entries, following


def _values(file: BinaryIO, size: int, order: str, entry: tuple[int, int, bytes]) -> tuple[int, ...]:
    kind, length, inline = entry
    code = _TYPE_CODES[kind]
    wanted = length * struct.calcsize(code)
    if kind == 2:
        length = wanted = min(wanted, DESCRIPTION_BYTES)
    if wanted <= len(inline):
        content = inline[:wanted]
    else:
        offset = struct.unpack(f"{order}{'I' if len(inline) == 4 else 'Q'}", inline)[0]
        content = _read(file, offset, wanted, size)
    return struct.unpack(f"{order}{length}{code}", content)


def _read(file: BinaryIO, offset: int, length: int, size: int) -> bytes:
    if offset + length > size:
        reason = f"is truncated: needs byte {offset + length:,} of {size:,}"
        raise DamagedImageError(reason)
    file.seek(offset)
    return file.read(length)


def _one(tags: Tags, tag: int) -> int:
    values = tags.get(tag, ())
    if len(values) != 1:
        reason = f"its header lacks tag {tag}"
        raise DamagedImageError(reason)
    return values[0]


def _check_data(tags: Tags, size: int, *, row_bits: int, height: int, width: int) -> None:
    is_tiled = _TILE_OFFSETS in tags
    offsets = tags.get(_TILE_OFFSETS if is_tiled else _STRIP_OFFSETS, ())
    lengths = tags.get(_TILE_BYTES if is_tiled else _STRIP_BYTES, ())
    if is_tiled:
        tile_height, tile_width = max(1, _one(tags, _TILE_HEIGHT)), max(1, _one(tags, _TILE_WIDTH))
        expected = -(-height // tile_height) * -(-width // tile_width)
    else:
        expected = -(-height // max(1, tags.get(_ROWS_PER_STRIP, (height,))[0]))
    if len(offsets) != expected or len(lengths) != expected:
        reason = f"lists {len(offsets)} data blocks of {len(lengths)} sizes, expected {expected}"
        raise DamagedImageError(reason)
    end = max(offset + length for offset, length in zip(offsets, lengths, strict=True))
    if end > size or min(lengths) < 1:
        reason = f"is truncated: its pixels end at byte {end:,} of {size:,}"
        raise DamagedImageError(reason)
    pixel_bytes, stored = height * row_bits // 8, sum(lengths)
    if tags.get(_COMPRESSION, (1,))[0] == 1 and stored < pixel_bytes:
        reason = f"is truncated: {stored:,} bytes for {pixel_bytes:,} bytes of pixels"
        raise DamagedImageError(reason)
    if pixel_bytes > MOST_RATIO * stored:
        reason = f"claims {pixel_bytes:,} bytes of pixels from {stored:,}: more than {MOST_RATIO:,} to 1"
        raise DamagedImageError(reason)


def _dtype_name(kind: str, bits: int) -> str:
    if kind == "other" or bits not in (8, 16, 32, 64):
        return f"{bits}-bit"
    return np.dtype(f"{kind}{bits // 8}").name if (kind, bits) != ("f", 8) else "8-bit float"


def _describe_start(magic: bytes, size: int) -> str:
    if size == 0:
        return "is empty"
    if not magic.strip(b"\0"):
        return "is filled with zeros"
    if magic.lstrip(b"\xef\xbb\xbf \r\n").startswith((b"<", b"{")):
        return f"is a text page, not a TIFF (starts with {magic!r})"
    return f"is not a TIFF (starts with {magic[:8]!r})"
