"""Damaged images are refused with a reason; what is accepted has tifffile's pixels."""

import contextlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cellvim.ingest.images.tiff import RATIOS, DamagedImageError, decode, parse_header, read_header
from pipelines.torture.hostile import tiff_bombs


def write(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def decode_bytes(content: bytes, page: int | None = None) -> np.ndarray:
    return decode(io.BytesIO(content), len(content), page)


def draw(shape: tuple[int, ...] = (33, 47), dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).integers(1, 200, shape).astype(dtype)


LAYOUTS = [
    {},
    {"compression": "lzw"},
    {"compression": "deflate"},
    {"compression": "zstd"},
    {"compression": "packbits"},
    {"compression": "lzw", "predictor": True},
    {"rowsperstrip": 5},
    {"tile": (16, 32), "compression": "deflate"},
    {"byteorder": ">"},
    {"bigtiff": True, "byteorder": ">", "rowsperstrip": 7},
]


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_layout_has_tifffiles_pixels(options: dict[str, object], dtype: str) -> None:
    content = write(draw(dtype=dtype), **options)
    header = parse_header(io.BytesIO(content), len(content))
    assert (header.height, header.width, header.dtype) == (33, 47, dtype)
    pixels = decode_bytes(content)
    np.testing.assert_array_equal(pixels, tifffile.imread(io.BytesIO(content)))
    assert pixels.dtype == np.dtype(dtype)
    assert pixels.dtype.isnative


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused_by_its_header(options: dict[str, object], share: float) -> None:
    content = write(draw(), **options)
    short = content[: int(len(content) * share)]
    with pytest.raises(DamagedImageError, match=r"truncated|empty|not a TIFF"):
        parse_header(io.BytesIO(short), len(short))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(5000), "filled with zeros"),
        (b"<html>Not found, log in again</html>", "text page, not a TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a TIFF"),
        (b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 60000) + bytes(20), "claims 60000 entries"),
        (b"II*\0" + struct.pack("<I", 8) + bytes(30), "claims 0 entries"),
        (write(draw((3, 33, 47)), photometric="minisblack"), "several pages"),
        (write(draw((33, 47, 3), "uint8"), photometric="rgb"), "3 colours"),
        (write(np.zeros((33, 47), np.uint16)), "every pixel is zero"),
    ],
)
def test_what_is_no_plane_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DamagedImageError, match=message):
        decode_bytes(content)


@pytest.mark.parametrize("options", [{"truncate": True}, {"truncate": True, "imagej": True}])
def test_a_stack_behind_one_page_is_no_plane(options: dict[str, object]) -> None:
    """Large stacks may have a page for their first plane alone, whose description tells of the others."""
    stack = draw((3, 33, 47))
    content = write(stack, photometric="minisblack", **options)
    with pytest.raises(DamagedImageError, match="holds a stack behind its only page"):
        decode_bytes(content)
    # Cut apart, a plane keeps the description of the stack, and has nothing behind it.
    np.testing.assert_array_equal(decode_bytes(content[: -2 * stack[0].nbytes]), stack[0])


def patch_tag(content: bytes, tag: int, value: int) -> bytes:
    """Change one inline 32-bit value of a little-endian TIFF."""
    position = content.index(struct.pack("<HHI", tag, 4, 1)) + 8
    return content[:position] + struct.pack("<I", value) + content[position + 4 :]


def test_a_bomb_is_refused_before_anything_is_allocated() -> None:
    content = write(np.ones((64, 64), np.uint16), compression="deflate")
    with pytest.raises(DamagedImageError, match="more than 1,032 to 1"):
        decode_bytes(patch_tag(content, 256, 16000))
    with pytest.raises(DamagedImageError, match="at most 268,435,456"):
        decode_bytes(patch_tag(patch_tag(content, 256, 65535), 257, 65535))


@pytest.mark.parametrize("name", [name for name in tiff_bombs() if "claimed" in name])
def test_no_claim_of_an_image_gets_as_far_as_its_pixels(name: str) -> None:
    content = tiff_bombs()[name]
    with pytest.raises(DamagedImageError):
        parse_header(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("encode", "code", "side", "lowest"),
    # The time of imagecodecs' PackBits grows with the square of an image.
    [
        (imagecodecs.packbits_encode, 32_773, 256, 0.99),
        (imagecodecs.zlib_encode, 8, 2048, 0.95),
        (imagecodecs.lzw_encode, 5, 2048, 0.4),
    ],
)
def test_no_image_is_emptier_than_its_compression_can_tell(
    encode: Callable[[bytes], bytes], code: int, side: int, lowest: float
) -> None:
    """An image of one byte compresses best."""
    even = bytes([7]) * (2 * side * side)
    assert lowest * RATIOS[code] < len(even) / len(encode(even)) <= RATIOS[code]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "a strip of deflate that stands for 1,024",
            "536,870,912 bytes of pixels from [0-9,]+: more than 1,032 to 1",
        ),
        ("a strip of no compression that stands for 1,024", "truncated: [0-9,]+ bytes for 536,870,912"),
    ],
)
def test_strips_that_are_the_same_bytes_count_once(name: str, told: str) -> None:
    with pytest.raises(DamagedImageError, match=told):
        decode_bytes(tiff_bombs()[name])


def test_header_of_a_missing_or_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DamagedImageError, match="not there"):
        read_header(tmp_path / "none.tif")
    with pytest.raises(DamagedImageError, match="cannot be read: Is a directory"):
        read_header(tmp_path)


@given(st.data(), st.sampled_from(LAYOUTS))
def test_a_mutant_is_refused_or_decoded_but_never_breaks(
    data: st.DataObject, options: dict[str, object]
) -> None:
    content = bytearray(write(draw(), **options))
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of a TIFF's trouble is in its first and last bytes, where the tags are.
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, min(400, len(content) - 1)))
        content[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DamagedImageError):
        assert decode_bytes(bytes(content)).size < 2**20


@given(st.binary(max_size=300))
def test_noise_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedImageError):
        decode_bytes(b"II*\0" + content)
