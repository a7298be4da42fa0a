"""A field on disk is what zarr-python would have written, to the byte."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BloscShuffle

from cellvim.store.arrays import encode_array
from cellvim.store.layout import inner_chunk_px


def write_with_zarr(path: Path, pixels: np.ndarray, codec: str) -> dict[str, bytes]:
    chunk = (len(pixels), *(inner_chunk_px(side) for side in pixels.shape[1:]))
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=chunk,
        shards=tuple(-(-side // inner) * inner for side, inner in zip(pixels.shape, chunk, strict=True)),
        compressors=BloscCodec(
            cname=codec,
            clevel=1,
            shuffle=BloscShuffle.bitshuffle if codec == "zstd" else BloscShuffle.shuffle,
        ),
        fill_value=0,
        dimension_names=("c", "y", "x"),
        config={"write_empty_chunks": True},
    )
    array[:] = pixels
    return {
        name.relative_to(path).as_posix(): name.read_bytes() for name in path.rglob("*") if name.is_file()
    }


def is_shard(name: str) -> bool:
    return name.startswith("c/")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 301, 517), (5, 512, 256), (3, 97, 1080)])
def test_files_are_those_of_zarr_python(
    tmp_path: Path, codec: str, dtype: type, shape: tuple[int, ...]
) -> None:
    pixels = np.random.default_rng(sum(shape)).poisson(200, shape).clip(0, 255).astype(dtype)
    pixels[:, : shape[1] // 2] = 0
    ours, theirs = encode_array(pixels, codec=codec), write_with_zarr(tmp_path / "array", pixels, codec)
    assert set(ours) == set(theirs)
    assert ours["zarr.json"] == theirs["zarr.json"]
    for name in filter(is_shard, theirs):
        assert sorted_chunks(ours[name], pixels) == sorted_chunks(theirs[name], pixels)
    for name, content in ours.items():
        (tmp_path / "array" / name).write_bytes(content)
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "array"))[:], pixels)


def sorted_chunks(shard: bytes, pixels: np.ndarray) -> list[bytes]:
    """The chunks of a shard in the order of its index: zarr-python stores them as its threads finish."""
    sides = (-(-side // inner_chunk_px(side)) for side in pixels.shape[1:])
    count = int(np.prod(list(sides)))
    index = np.frombuffer(shard[-(16 * count + 4) : -4], dtype="<u8").reshape(count, 2).tolist()
    return [shard[start : start + length] for start, length in index]
