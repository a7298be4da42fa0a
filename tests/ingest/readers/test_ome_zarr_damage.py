"""Damaged and hostile OME-Zarr plates: found before a pixel is read, told apart from zeros, never a traceback."""

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numcodecs import Blosc

from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, InputError
from cellvim.ingest import ingest_plates
from cellvim.ingest.images import read_header, read_plane
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import ImagePart
from cellvim.store import FieldKey
from tests.ingest.readers.foreign_plates import (
    Style,
    chunks_of,
    foresee,
    image_attributes,
    ingest_one,
    name_images,
    random_5d,
    styles,
    write_array,
    write_group,
    write_plate,
)

# One of each way to store chunks: nested and flat, both versions, in shards.
STORED = ("fractal", "plain", "0.5", "0.5 gzip", "0.5 sharded", "0.5 blosc shards")


@pytest.mark.parametrize("name", STORED)
def test_a_lost_or_short_chunk_is_found_before_a_pixel_is_read(name: str, tmp_path: Path) -> None:
    style = styles()[name]
    pixels = random_5d(1, 2 if "c" in style.axes else 1, 1)
    folder = write_plate(tmp_path / "P.zarr", {"B/7/0": pixels, "B/7/1": pixels}, style)
    lost = chunks_of(folder / "B/7/0/0")[0]
    whole = lost.read_bytes()
    lost.unlink()
    problem = foresee(folder).problems[0]
    assert "B07/0" in problem
    assert "chunks of the plane, which zarr would read as zeros" in problem
    lost.write_bytes(whole[: len(whole) // 2])
    if name not in {"plain", "0.5 gzip"}:
        assert "B07/0" in foresee(folder).problems[0]
    with pytest.raises(DamagedImageError):
        read_plane(ImagePart(folder / "B/7/0/0", (0,) * (len(style.axes) - 2)))
    lost.write_bytes(b"")
    assert "B07/0" in foresee(folder).problems[0]


def test_a_chunk_lost_inside_of_a_shard_is_found(tmp_path: Path) -> None:
    pixels = random_5d(1, 1, 1)
    pixels[..., :32, :32] = 0
    style = Style("0.5", 3, chunk=32, array={"shards": True})
    path = write_plate(tmp_path / "P.zarr", {"A/1/0": pixels}, style) / "A/1/0/0"
    read_plane(ImagePart(path, (0, 0)))
    whole = zarr.open_array(path, mode="r")[:]
    array = zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": False})
    array[:] = whole
    with pytest.raises(DamagedImageError, match="lacks 1 of 4 chunks of the plane"):
        read_header(ImagePart(path, (0, 0)))


def test_fields_without_all_chunks_can_be_skipped_or_filled(tmp_path: Path) -> None:
    fields = {f"A/1/{site}": random_5d(1, 2, 1, seed=site) for site in (0, 1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style())
    chunks_of(folder / "A/1/0/0")[0].unlink()
    assert list(map(str, ingest_one(folder, on_missing="skip-field").fields)) == ["A01/1"]
    filled = ingest_one(folder, on_missing="fill", overwrite=True)
    assert filled.is_valid(FieldKey("A01", 0)).tolist() == [False, True]
    assert not filled.read_field(FieldKey("A01", 0))[0].any()
    with pytest.raises(InputError) as caught:
        ingest_one(folder, out=folder.parent / "other")
    assert "--on-missing skip-field" in caught.value.hint


def test_lost_metadata_are_a_problem_and_lost_folders_a_note(tmp_path: Path) -> None:
    fields = {
        f"{well}/{site}": random_5d(1, 2, 2) for well in ("A/1", "A/2", "B/1", "B/2") for site in (0, 1)
    }
    folder = write_plate(tmp_path / "P.zarr", fields, Style())
    (folder / "A/1/.zattrs").unlink()
    (folder / "A/2/1/.zattrs").write_text("{")
    (folder / "B/1/0/0/.zarray").write_text("[]")
    shutil.rmtree(folder / "B/2")
    plate = foresee(folder)
    assert sorted({line.partition(" ")[0] for line in plate.problems}) == ["A01/0", "A01/1", "A02/1", "B01/0"]
    assert any("B01/0 0: 0 part 0/0/0 its .zarray holds no JSON object" in line for line in plate.problems)
    assert any("A/2/1 its .zattrs is damaged JSON" in line for line in plate.warnings)
    assert plate.skipped["B02"] == "named by the source's plan, but has no images"


@pytest.mark.parametrize(
    "path", ["../../secret", "/etc", "..", "a/../../b", "A\\0", "", "x\u0000y", "\ud800"]
)
def test_paths_that_lead_out_are_refused(path: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    write_plate(tmp_path / "secret", {"A/1/0": random_5d(1, 1, 1)}, Style())
    whole = (folder / "A/1/0/.zattrs").read_bytes()
    image = json.loads(whole)
    image["multiscales"][0]["datasets"][0]["path"] = path
    (folder / "A/1/0/.zattrs").write_text(json.dumps(image))
    with pytest.raises(InputError):
        foresee(folder)
    (folder / "A/1/0/.zattrs").write_bytes(whole)
    name_images(folder / "A/1", [{"path": path}])
    with pytest.raises(InputError):
        foresee(folder)
    write_group(folder, {"plate": {"wells": [{"path": f"A/{path}"}]}}, Style())
    with pytest.raises(InputError):
        foresee(folder)


@pytest.mark.parametrize("link", ["A/1/0/0", "A/1/0", "A/1"])
def test_links_that_lead_out_are_refused(link: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    (folder / link).rename(tmp_path / "elsewhere")
    (folder / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="lies outside of the plate"):
        foresee(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [1, 1, 10**6, 10**6]}, "claims 1000000 x 1000000 pixels"),
        ({"shape": [1, 1, 400, 500], "chunks": [500, 500, 64, 64]}, "bytes of decoded chunks for one plane"),
        ({"shape": [10**9, 10**9, 40, 50]}, "claims 1,000,000,000,000,000,000 planes"),
        ({"shape": [1, 1, 40, -50]}, "claims a shape"),
        ({"chunks": [1, 1, 0, 50]}, "claims a shape"),
        ({"chunks": [1, 1, 32, 32]}, "lacks"),
        ({"dtype": "<f4"}, "holds float32, expected uint8 or uint16"),
        ({"dtype": [["a", "<u2"]]}, "holds a structured type"),
        ({"compressor": {"id": "lzma"}}, "a compressor lzma, which cellvim does not read"),
        ({"filters": [{"id": "delta"}]}, "a filter, which cellvim does not read"),
    ],
)
def test_lies_of_an_array_are_found(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    described = folder / "A/1/0/0/.zarray"
    described.write_text(json.dumps(json.loads(described.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        foresee(folder)


@pytest.mark.parametrize(
    "axes", [["c", "z", "x", "y"], ["y", "x", "c", "z"], ["y", "y", "y", "x"], [None] * 4, ["x"]]
)
def test_planes_must_be_y_by_x(axes: list[Any], tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    image = image_attributes(Style(), ())
    image["multiscales"][0]["axes"] = axes
    write_group(folder / "A/1/0", image, Style())
    with pytest.raises(InputError, match="has the axes"):
        foresee(folder)


def test_a_chunk_that_swells_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "0"
    write_array(path, random_5d(1, 1)[0], Style(array={"compressors": Blosc()}))
    chunk = chunks_of(path)[0]
    chunk.write_bytes(Blosc("zstd").encode(np.zeros(1 << 28, np.uint8)))
    with pytest.raises(DamagedImageError, match="would decode to 268,435,456 bytes, expected 8,192"):
        read_header(ImagePart(path, (0,)))


def test_zeros_are_no_plane(tmp_path: Path) -> None:
    write_array(tmp_path / "0", np.zeros((1, 40, 50), np.uint16), Style())
    with pytest.raises(DamagedImageError, match="every pixel is zero"):
        read_plane(ImagePart(tmp_path / "0", (0,)))


def test_a_pipe_is_no_array(tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    (folder / "A/1/0/0/.zarray").unlink()
    os.mkfifo(folder / "A/1/0/0/.zarray")
    with pytest.raises(InputError, match="is no zarr array, or its metadata are lost"):
        ingest_one(folder)


def test_a_repaired_array_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "0"
    for seed in (1, 2):
        pixels = random_5d(1, 1, seed=seed)[0]
        write_array(path, pixels, Style())
        np.testing.assert_array_equal(read_plane(ImagePart(path, (0,))).pixels, pixels[0])


@pytest.mark.parametrize("name", ["fractal", "0.5 blosc shards", "0.5 gzip"])
def test_whatever_bytes_are_in_the_files_no_other_error_is_raised(name: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, styles()[name], labels=("DNA",))
    generator = random.Random(name)  # noqa: S311 - no secrets here
    settings = IngestSettings(sources=(folder,), out=tmp_path / "out", source="ome-zarr")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    outcomes = set()
    for _ in range(150):
        path = generator.choice(files)
        whole = path.read_bytes()
        path.write_bytes(mutant(whole, generator))
        try:
            (plate,) = read_source(folder, settings)
            for plane in plate.planes:
                read_header(plane.image)
                read_plane(plane.image)
            outcomes.add("read")
        except CellvimError:
            outcomes.add("refused")
        path.write_bytes(whole)
    assert outcomes == {"read", "refused"}


def mutant(whole: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(whole))
    match generator.randrange(4):
        case 0:
            return whole[:place]
        case 1:
            return whole[:place] + generator.randbytes(1) + whole[place + 1 :]
        case 2:
            return whole.replace(b"0", b"99999999999", 1)
        case _:
            return b"[" * 100_000 if whole.startswith(b"{") else generator.randbytes(len(whole))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda plate: (plate / ".zattrs").unlink(),
            "lacks its metadata: neither zarr.json nor .zattrs is there",
        ),
        (lambda plate: (plate / ".zattrs").write_text("{"), "its .zattrs is damaged JSON"),
        (
            lambda plate: (plate / ".zattrs").write_text('{"multiscales": []}'),
            "has no plate metadata .found: multiscales",
        ),
        (lambda plate: (plate / ".zattrs").write_text('{"plate": {"wells": [{}]}}'), "names no wells"),
        (lambda plate: shutil.rmtree(plate / "A"), "none of its wells is there"),
    ],
)
@pytest.mark.parametrize("is_folder_named", [True, False])
def test_what_is_no_plate_is_told_from_what_is_no_image(
    spoil: Callable[[Path], object],
    message: str,
    is_folder_named: bool,
    tmp_path: Path,
) -> None:
    folder = write_plate(tmp_path / "in/P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    spoil(folder)
    source = folder.parent if is_folder_named else folder
    settings = IngestSettings(sources=(source,), out=tmp_path / "out", dry_run=True)
    with pytest.raises(InputError, match=message):
        ingest_plates(settings)
