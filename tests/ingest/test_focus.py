"""The sharpest plane of a stack: found through noise and drift, kept unchanged, and named."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.ndimage
import tifffile

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.ingest.quality import sharpness
from cellvim.store import FieldKey, PlateReader

MakeSettings = Callable[..., IngestSettings]

STACK = "imagexpress/ImageXpress_exported/9987_Plate_3434"


def stack_of(truth: np.ndarray, *, sharpest: int, signal: float, drift: float, seed: int) -> list[np.ndarray]:
    """Five planes out of focus by their distance from one, under shot noise and a lamp that drifts."""
    generator = np.random.default_rng(seed)
    planes = []
    for z in range(5):
        blurred = scipy.ndimage.gaussian_filter(truth, 1 + 0.8 * abs(z - sharpest))
        photons = 300 + signal * (1 + drift * (z - sharpest)) * blurred
        planes.append(generator.poisson(photons).astype(np.uint16))
    return planes


def cells(seed: int, side: int = 256) -> np.ndarray:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    picture = np.zeros((side, side))
    for _ in range(25):
        top, left, radius = *generator.uniform(0, side, 2), generator.uniform(4, 9)
        picture += ((y - top) ** 2 + (x - left) ** 2 < radius**2) * generator.uniform(0.3, 1)
    return picture


@pytest.mark.parametrize("signal", [2000, 200])
@pytest.mark.parametrize("drift", [0.0, -0.05, 0.05])
@pytest.mark.parametrize("sharpest", [0, 2, 4])
def test_the_plane_in_focus_is_the_sharpest(signal: float, drift: float, sharpest: int) -> None:
    for seed in range(3):
        planes = stack_of(cells(seed), sharpest=sharpest, signal=signal, drift=drift, seed=seed)
        assert int(np.argmax([sharpness(plane) for plane in planes])) == sharpest


def test_blur_lowers_the_sharpness_of_a_real_image(shared: Path) -> None:
    plane = tifffile.imread(shared / "data/nf1_schwann/images/B7_01_1_3_DAPI_001.tif")
    blurred = [scipy.ndimage.gaussian_filter(plane.astype(float), sigma) for sigma in (0.7, 1.5, 3, 6)]
    found = [sharpness(image.astype(np.uint16)) for image in (plane, *blurred)]
    assert found == sorted(found, reverse=True)


def test_sharpness_is_brenners_of_bins_of_four() -> None:
    plane = np.random.default_rng(5).integers(0, 65536, (61, 83)).astype(np.uint16)
    bins = plane[:60, :82].astype(float).reshape(30, 2, 41, 2).sum(axis=(1, 3))
    steps = [bins[2:] - bins[:-2], bins[:, 2:] - bins[:, :-2]]
    expected = sum(np.mean(step**2) for step in steps) / bins.mean() ** 2
    assert sharpness(plane) == pytest.approx(expected, rel=1e-12)
    assert sharpness(np.zeros((30, 30), np.uint16)) == 0


def write_stack(folder: Path, planes: Sequence[np.ndarray], first_z: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(planes):
        tifffile.imwrite(folder / f"P_A01_s1_z{first_z + number}_w1.tif", plane)


PATTERN = "{plate}_{well}_s{field}_z{z}_w{channel}.tif"


def stored(out: Path, name: str = "P") -> tuple[np.ndarray, pl.DataFrame]:
    pixels = PlateReader(out / f"{name}.ome.zarr").read_field(FieldKey("A01", 1))
    return pixels, pl.read_parquet(out / f"{name}.cellvim" / "quality.parquet")


def test_the_sharpest_plane_is_stored_as_it_is_and_named(tmp_path: Path, make_settings: MakeSettings) -> None:
    planes = stack_of(cells(1), sharpest=3, signal=1000, drift=0, seed=1)
    write_stack(tmp_path / "images", planes)
    ingest_plates(make_settings(z="focus", pattern=PATTERN))
    pixels, quality = stored(tmp_path / "out")
    np.testing.assert_array_equal(pixels[0], planes[3])
    assert quality["z_chosen"].to_list() == [6]


def test_of_equal_planes_the_lowest_is_kept(tmp_path: Path, make_settings: MakeSettings) -> None:
    plane = cells(2)
    same = (300 + 1000 * plane).astype(np.uint16)
    blurred = scipy.ndimage.gaussian_filter(same, 3)
    write_stack(tmp_path / "images", [blurred, same, same], first_z=8)
    ingest_plates(make_settings(z="focus", pattern=PATTERN))
    pixels, quality = stored(tmp_path / "out")
    np.testing.assert_array_equal(pixels[0], same)
    assert quality["z_chosen"].to_list() == [9]


@pytest.mark.parametrize("z", ["max", "mean"])
def test_what_one_plane_has_lost_is_not_hidden_by_the_projection(
    tmp_path: Path, make_settings: MakeSettings, z: str
) -> None:
    planes = stack_of(cells(1), sharpest=2, signal=1000, drift=0, seed=1)
    planes[1][64:128] = 0
    write_stack(tmp_path / "images", planes)
    ingest_plates(make_settings(z=z, pattern=PATTERN))
    _, quality = stored(tmp_path / "out")
    assert quality["empty_fraction"].to_list() == [0.25]
    assert quality["z_chosen"].to_list() == [None]


def test_a_real_stack(shared: Path, tmp_path: Path, make_settings: MakeSettings) -> None:
    """Every stored plane is one of the files' planes, and no plane of its stack has a steeper gradient."""
    ingest_plates(make_settings(sources=(shared / "data" / STACK,), z="focus"))
    reader = PlateReader(next((tmp_path / "out").glob("*.ome.zarr")))
    quality = pl.read_parquet(next((tmp_path / "out").glob("*.cellvim")) / "quality.parquet")
    dapi = reader.channels.index("DAPI")
    assert len(reader.fields) == 4
    for key in reader.fields:
        paths = sorted(
            (shared / "data" / STACK).glob(f"TimePoint_1/ZStep_[12]/9987_{key.well}_s{key.site}_w1.TIF")
        )
        planes = [tifffile.imread(path) for path in paths]
        bins = [plane.astype(float).reshape(128, 2, 128, 2).sum(axis=(1, 3)) for plane in planes]
        steep = [
            (np.mean((b[2:] - b[:-2]) ** 2) + np.mean((b[:, 2:] - b[:, :-2]) ** 2)) / b.mean() ** 2
            for b in bins
        ]
        best = int(np.argmax(steep))
        np.testing.assert_array_equal(reader.read_field(key)[dapi], planes[best])
        row = quality.filter(Metadata_Well=key.well, Metadata_Site=key.site, channel="DAPI")
        assert row["z_chosen"].to_list() == [best + 1]
