"""Read grey planes from a TIFF that may be damaged, without trusting a single number in it.

What a header says is checked here before anything is allocated; libtiff or tifffile decodes.

Source:
    TIFF 6.0 (1992), and the BigTIFF extension.
"""

import io
import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from cellvim.ingest.images.tiff_tags import DamagedImageError, Tag, Tags, read_tags

__all__ = ["NOT_THERE", "DamagedImageError", "TiffHeader", "decode", "parse_header", "read_header"]

MOST_PIXELS = 2**28
MOST_RATIO = 10_000
RATIOS = {5: 2_600, 8: 1_032, 32_773: 64, 32_946: 1_032}
"""What no stream of a compression can swell by, however empty the image: LZW writes at most 3,839 bytes for 12 bits,
deflate 258 for 2 bits, PackBits 128 for 2 bytes."""
NOT_THERE = "the file is not there"

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

_KINDS = {1: "u", 2: "i", 3: "f"}
# LZW, which libtiff decodes as tifffile does, in half the time, before imagecodecs became the faster of the two.
_IS_LIBTIFF_FASTER = tuple(map(int, imagecodecs.__version__.split(".")[:2])) < (2026, 10)
_LZW = 5
_IMAGEJ = re.compile(r"ImageJ=.*?^images=0*([1-9]\d{0,8})$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF says about itself.

    Attributes:
        dtype: For example ``uint16``; also types that ingest refuses, such as ``float32``.
        description: Tag ImageDescription, cut after 64 kB.
        file_bytes: Size of the whole file.
        compression: Tag Compression; 1 is none, 5 LZW.
    """

    height: int
    width: int
    dtype: str
    description: str
    file_bytes: int
    compression: int


def read_header(path: Path, page: int | None = None) -> TiffHeader:
    """Check one page of a file against the file's size.

    Args:
        path: The file.
        page: Number of the page, from 0; None for the only one.

    Raises:
        DamagedImageError: Not a TIFF, truncated, of several pages or colours, or of impossible size.
    """
    try:
        # Unbuffered: pieces are cut to measure here.
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                reason = "is no file"
                raise DamagedImageError(reason)
            return parse_header(file, state.st_size, page)
    except FileNotFoundError as error:
        raise DamagedImageError(NOT_THERE) from error
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise DamagedImageError(reason) from error


def parse_header(file: BinaryIO, size: int, page: int | None = None) -> TiffHeader:
    """Parse and check one page; `size` is the file's size in bytes. See `read_header`."""
    tags, has_more_pages = read_tags(file, size, page or 0)
    if has_more_pages and page is None:
        reason = "holds several pages, expected one plane per file"
        raise DamagedImageError(reason)
    height, width = _one(tags, Tag.HEIGHT), _one(tags, Tag.WIDTH)
    if height < 1 or width < 1 or height * width > MOST_PIXELS:
        reason = f"claims {width} x {height} pixels, at most {MOST_PIXELS:,} are read"
        raise DamagedImageError(reason)
    if (colours := _first(tags, Tag.SAMPLES, 1)) != 1:
        reason = f"holds {colours} colours per pixel, expected one grey channel"
        raise DamagedImageError(reason)
    bits, kind = _first(tags, Tag.BITS, 1), _KINDS.get(_first(tags, Tag.SAMPLE_FORMAT, 1), "other")
    _check_data(tags, size, row_bits=width * bits, height=height, width=width)
    text = tags.get(Tag.DESCRIPTION, b"")
    description = text.decode("utf-8", errors="replace") if isinstance(text, bytes) else ""
    compression = _first(tags, Tag.COMPRESSION, 1)
    if page is None and compression == 1 and _holds_stack(description, size, height * width * bits // 8):
        reason = "holds a stack behind its only page, expected one plane per file"
        raise DamagedImageError(reason)
    return TiffHeader(height, width, _dtype_name(kind, bits), description, size, compression)


def decode(content: BinaryIO, size: int, page: int | None = None) -> NDArray[np.unsignedinteger]:
    """Decode one page of an open TIFF of `size` bytes.

    Raises:
        DamagedImageError: See `read_header`; or the compressed data are damaged; or every pixel is zero.
    """
    header = parse_header(content, size, page)
    try:
        pixels = _decode(content, header, page or 0)
    except DECODE_ERRORS as error:
        reason = f"cannot be decoded: {type(error).__name__}: {str(error).strip() or 'no reason given'}"
        raise DamagedImageError(reason.splitlines()[0][:200]) from error
    if pixels.shape != (header.height, header.width) or pixels.dtype.name != header.dtype:
        says = f"{(header.height, header.width)} {header.dtype}"
        reason = f"decodes to {pixels.shape} {pixels.dtype}, its header says {says}"
        raise DamagedImageError(reason)
    if not pixels.any():
        reason = "every pixel is zero"
        raise DamagedImageError(reason)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _decode(content: BinaryIO, header: TiffHeader, page: int) -> NDArray[np.unsignedinteger]:
    is_lzw = header.compression == _LZW and header.dtype in ("uint8", "uint16")
    if is_lzw and _IS_LIBTIFF_FASTER and page == 0 and isinstance(content, io.BytesIO):
        pixels: NDArray[np.unsignedinteger] = imagecodecs.tiff_decode(content.getvalue())
        return pixels
    content.seek(0)
    with tifffile.TiffFile(content) as file:
        return file.pages[page].asarray(maxworkers=1)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; a named pipe would otherwise wait for somebody to write into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _one(tags: Tags, tag: int) -> int:
    values = tags.get(tag, ())
    if len(values) != 1:
        reason = f"its header lacks tag {tag}"
        raise DamagedImageError(reason)
    return values[0]


def _first(tags: Tags, tag: int, default: int) -> int:
    return next(iter(tags.get(tag, ())), default)


def _check_data(tags: Tags, size: int, *, row_bits: int, height: int, width: int) -> None:
    is_tiled = Tag.TILE_OFFSETS in tags
    offsets = tags.get(Tag.TILE_OFFSETS if is_tiled else Tag.STRIP_OFFSETS, ())
    lengths = tags.get(Tag.TILE_BYTES if is_tiled else Tag.STRIP_BYTES, ())
    if is_tiled:
        tile_height, tile_width = max(1, _one(tags, Tag.TILE_HEIGHT)), max(1, _one(tags, Tag.TILE_WIDTH))
        expected = -(-height // tile_height) * -(-width // tile_width)
    else:
        expected = -(-height // max(1, _first(tags, Tag.ROWS_PER_STRIP, height)))
    if len(offsets) != expected or len(lengths) != expected:
        reason = f"lists {len(offsets)} data blocks of {len(lengths)} sizes, expected {expected}"
        raise DamagedImageError(reason)
    end = max(offset + length for offset, length in zip(offsets, lengths, strict=True))
    if end > size or min(lengths) < 1:
        reason = f"is truncated: its pixels end at byte {end:,} of {size:,}"
        raise DamagedImageError(reason)
    # Blocks may be one and the same bytes, and then promise more than the file holds.
    pixel_bytes, stored = height * row_bits // 8, min(sum(lengths), size)
    compression = _first(tags, Tag.COMPRESSION, 1)
    if compression == 1 and stored < pixel_bytes:
        reason = f"is truncated: {stored:,} bytes for {pixel_bytes:,} bytes of pixels"
        raise DamagedImageError(reason)
    most = RATIOS.get(compression, MOST_RATIO)
    if pixel_bytes > most * stored:
        reason = f"claims {pixel_bytes:,} bytes of pixels from {stored:,}: more than {most:,} to 1"
        raise DamagedImageError(reason)


def _holds_stack(description: str, size: int, plane_bytes: int) -> bool:
    """Whether planes follow the first without pages of their own, as ImageJ and tifffile may write large stacks."""
    match = _IMAGEJ.match(description)
    is_cut = description.startswith('{"shape"') and '"truncated": true' in description
    planes = int(match[1]) if match else 2 if is_cut else 1
    return planes > 1 and size >= planes * plane_bytes


def _dtype_name(kind: str, bits: int) -> str:
    if kind == "other" or bits not in (8, 16, 32, 64):
        return f"{bits}-bit"
    return np.dtype(f"{kind}{bits // 8}").name if (kind, bits) != ("f", 8) else "8-bit float"
