"""Images of every kind behind one pair of functions: what a plane's header says, and its pixels."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellvim.ingest.images import tiff, zarr_arrays
from cellvim.ingest.images.tiff import DamagedImageError, TiffHeader
from cellvim.ingest.sources import IMAGE_SUFFIXES, ImagePart
from cellvim.provenance import sha256_of
from cellvim.store.records import plane_sha256


@dataclass(frozen=True)
class Header:
    """What an image says about a plane before its pixels are read.

    Attributes:
        dtype: For example ``uint16``; also types that ingest refuses, such as ``float32``.
        size_bytes: Of the file; of the plane's pixels where a file or an array holds several.
    """

    height: int
    width: int
    dtype: str
    size_bytes: int


@dataclass(frozen=True)
class Content:
    """A plane as read.

    Attributes:
        pixels: Axes (y, x), native byte order.
        size_bytes: See `Header`.
        sha256: Of the file; of the plane's pixels (little-endian, row by row) where a file holds several.
    """

    pixels: NDArray[np.unsignedinteger]
    size_bytes: int
    sha256: str


def read_header(image: ImagePart) -> Header:
    """Check what an image says about a plane, without reading pixels.

    Raises:
        DamagedImageError: It cannot be used; the message is the reason alone.
    """
    if _is_zarr(image):
        layout = zarr_arrays.check_plane(image.path, image.part)
        height, width = layout.shape[-2:]
        return Header(height, width, layout.dtype, layout.plane_bytes)
    _refuse_unknown(image)
    header = tiff.read_header(image.path, *image.part)
    size = _pixel_bytes(header) if image.part else header.file_bytes
    return Header(header.height, header.width, header.dtype, size)


def read_plane(image: ImagePart) -> Content:
    """Read a plane, and the checksum of what it came from, in one go.

    Raises:
        DamagedImageError: See `read_header`; or the pixels cannot be decoded, or all of them are zero.
    """
    if image.part or _is_zarr(image):
        pixels = _read_part(image)
        return Content(pixels, pixels.nbytes, plane_sha256(pixels))
    content = _read_bytes(image)
    pixels = tiff.decode(io.BytesIO(content), len(content))
    return Content(pixels, len(content), sha256_of(content))


def fingerprint(image: ImagePart) -> tuple[int, str]:
    """Size in bytes and sha256 as `read_plane` gives them, also of a file that is damaged.

    Raises:
        DamagedImageError: There is nothing to be read.
    """
    if image.part or _is_zarr(image):
        pixels = _read_part(image)
        return pixels.nbytes, plane_sha256(pixels)
    content = _read_bytes(image)
    return len(content), sha256_of(content)


def _read_part(image: ImagePart) -> NDArray[np.unsignedinteger]:
    if _is_zarr(image):
        return zarr_arrays.read_plane(image.path, image.part)
    _refuse_unknown(image)
    try:
        with image.path.open("rb") as file:
            return tiff.decode(file, image.path.stat().st_size, *image.part)
    except OSError as error:
        raise _unreadable(error) from error


def _read_bytes(image: ImagePart) -> bytes:
    try:
        return image.path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> DamagedImageError:
    return DamagedImageError(f"cannot be read: {error.strerror}")


def _is_zarr(image: ImagePart) -> bool:
    """Arrays are folders, mostly without a suffix; one that is lost is still no TIFF."""
    suffix = image.path.suffix.lower()
    return suffix not in IMAGE_SUFFIXES and (not suffix or image.path.is_dir())


def _refuse_unknown(image: ImagePart) -> None:
    if image.path.suffix.lower() not in IMAGE_SUFFIXES:
        reason = "is no TIFF by its name"
        raise DamagedImageError(reason)


def _pixel_bytes(header: TiffHeader) -> int:
    return header.height * header.width * (2 if header.dtype == "uint16" else 1)
