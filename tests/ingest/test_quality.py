"""Measures of planes: their laws, on noise whose spectrum is known and on real images; and which planes stand out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.ndimage
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.ingest.quality import empty_fraction, focus_slope, measure_plane
from cellvim.store.intensity import histograms_of
from cellvim.store.quality import BOUNDS, encoding_of, excesses, quality_table

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]

REAL = ("nf1_schwann/images/B7_01_1_3_DAPI_001.tif", "bbbc013/images/Channel1-01-A-01.tif")
# Nine tiles hold some 4,000 independent frequencies; the slope through them varies by 0.08.
NOISE_TOLERANCE = 0.3


def coloured_noise(exponent: float, side: int = 640) -> np.ndarray:
    """Noise whose power falls with the given exponent of frequency."""
    generator = np.random.default_rng(3)
    spectrum = np.fft.rfft2(generator.normal(size=(side, side)))
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    radius[0, 0] = 1
    shaped = np.fft.irfft2(spectrum * radius ** (-exponent / 2), s=(side, side))
    return np.rint(20000 + 3000 * shaped / shaped.std()).astype(np.uint16)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_the_slope_of_noise_is_its_exponent(exponent: float) -> None:
    assert focus_slope(coloured_noise(exponent)) == pytest.approx(-exponent, abs=NOISE_TOLERANCE)


@pytest.mark.parametrize("name", REAL)
def test_more_blur_is_a_steeper_slope(shared: Path, name: str) -> None:
    plane = tifffile.imread(shared / "data" / name)
    blurred = [
        np.rint(scipy.ndimage.gaussian_filter(plane.astype(float), sigma)).astype(plane.dtype)
        for sigma in (0.5, 1, 2, 3, 4, 6)
    ]
    slopes = [focus_slope(image) for image in (plane, *blurred)]
    assert slopes == sorted(slopes, key=float, reverse=True)
    assert slopes[0] - slopes[-1] > 3


def test_brightness_and_offset_do_not_change_the_slope() -> None:
    plane = coloured_noise(2.0) // 4
    assert focus_slope(plane * 2 + np.uint16(100)) == pytest.approx(focus_slope(plane), abs=1e-3)


@pytest.mark.parametrize("shape", [(300, 300), (64, 2000)])
def test_a_flat_image_has_no_slope(shape: tuple[int, int]) -> None:
    assert focus_slope(np.full(shape, 77, np.uint16)) is None
    assert "focus_slope" not in measure_plane(np.full(shape, 77, np.uint16))


def test_a_field_too_small_for_tiles_has_no_slope() -> None:
    assert focus_slope(coloured_noise(1.0)[:31, :400]) is None
    assert focus_slope(coloured_noise(1.0)[:32, :400]) is not None


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 13), st.integers(1, 300)),
        elements=st.integers(0, 1),
        fill=st.just(0),
    )
)
def test_blank_blocks_are_counted_as_a_loop_counts_them(plane: np.ndarray) -> None:
    height, width = min(4, plane.shape[0]), min(128, plane.shape[1])
    found = [
        len(np.unique(plane[top : top + height, left : left + width])) == 1
        for top in range(0, plane.shape[0] - height + 1, height)
        for left in range(0, plane.shape[1] - width + 1, width)
    ]
    assert empty_fraction(plane) == pytest.approx(np.mean(found))


@given(st.integers(0, 1073))
def test_seven_lost_rows_are_always_seen(top: int) -> None:
    plane = NOISE.copy()
    plane[top : top + 7] = 0
    assert empty_fraction(plane) > 0


NOISE = np.random.default_rng(0).poisson(300, (1080, 300)).astype(np.uint16)


def test_histograms_count_as_numpy_does() -> None:
    pixels = np.random.default_rng(1).integers(0, 5000, (2, 700, 501)).astype(np.uint16)
    counts = histograms_of(pixels)
    for plane, found in zip(pixels, counts, strict=True):
        np.testing.assert_array_equal(found, np.bincount(plane.ravel(), minlength=pixels.max() + 1))


@pytest.mark.parametrize(
    ("values", "largest", "ceiling", "note"),
    [
        (np.arange(256), 255, 255, None),
        (np.arange(3000), 2999, 4095, None),
        (np.arange(4096), 4095, 4095, None),
        (np.arange(4097), 4096, 16383, None),
        (np.arange(65536), 65535, 65535, None),
        (np.arange(256) * 257, 65535, 65535, "8-bit"),
        (np.arange(200) * 257, 199 * 257, 65535, "8-bit"),
        (np.arange(4096) * 16, 65520, 65520, "12-bit"),
        (np.array([0, 257]), 257, 1023, None),
        (np.arange(900), 65535, 65535, None),
    ],
)
def test_the_cameras_ceiling(values: np.ndarray, largest: int, ceiling: int, note: str | None) -> None:
    found = encoding_of(np.bincount(values), largest)
    assert found.ceiling == ceiling
    assert (found.note or "").find(note or "") >= 0
    assert (found.note is None) == (note is None)


def planes(**measures: list[float | None]) -> pl.DataFrame:
    count = len(next(iter(measures.values())))
    usual = {"focus_slope": -3.0, "saturated_fraction": 0.0, "empty_fraction": 0.0, "mean": 500.0}
    rows: list[dict[str, Any]] = [
        {"Metadata_Well": "A01", "Metadata_Site": number, "channel": "DNA", "is_valid": True, **usual}
        | {name: values[number] for name, values in measures.items()}
        for number in range(count)
    ]
    return quality_table(rows)


@pytest.mark.parametrize(
    ("name", "odd", "flag"),
    [
        ("focus_slope", -4.5, "blurred"),
        ("focus_slope", -0.2, "without structure"),
        ("saturated_fraction", 0.02, "saturated"),
        ("empty_fraction", 0.03, "partly blank"),
        ("mean", 150.0, "dark"),
        ("mean", 2000.0, "bright"),
    ],
)
def test_the_odd_plane_is_flagged_and_no_other(name: str, odd: float, flag: str) -> None:
    like = {"focus_slope": -3.0, "saturated_fraction": 0.0, "empty_fraction": 0.0, "mean": 500.0}[name]
    values = [like * (1 + 0.01 * (number % 5)) for number in range(20)]
    flags = planes(**{name: [*values, odd]})["flags"].to_list()
    assert flags == [[]] * 20 + [[flag]]


@pytest.mark.parametrize("others", [7, 8, 9, 12])
def test_one_odd_plane_among_few_does_not_hide_itself(others: int) -> None:
    flags = planes(empty_fraction=[0.0] * others + [0.03])["flags"].to_list()
    assert flags == [[]] * others + [["partly blank"]]


def test_a_few_planes_make_nothing_usual_but_fixed_bounds_hold() -> None:
    assert planes(mean=[100.0, 9000.0], saturated_fraction=[0.0, 0.5])["flags"].to_list() == [
        [],
        ["saturated"],
    ]


def test_where_every_tenth_plane_has_black_corners_none_is_flagged() -> None:
    blank = [0.02 if number % 8 == 0 else 0.0 for number in range(80)]
    assert planes(empty_fraction=blank)["flags"].list.len().sum() == 0


@given(st.lists(st.floats(-6, 0), min_size=8, max_size=40), st.floats(-100, 100))
def test_a_shift_of_all_planes_flags_nothing_new(values: list[float], shift: float) -> None:
    bound = BOUNDS["focus_slope"]
    before, after = (excesses(np.array(values) + by, bound) for by in (0.0, shift))
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_the_plates_table(write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path) -> None:
    """Known truth: the very arrays that were written to the files."""
    folder = write_images(sites=5, shape=(64, 256))
    blank = tifffile.imread(folder / "P_A01_s2_w1.tif")
    blank[20:40] = 0
    bright = tifffile.imread(folder / "P_B02_s3_w2.tif")
    bright[:8] = 4095
    tifffile.imwrite(folder / "P_A01_s2_w1.tif", blank)
    tifffile.imwrite(folder / "P_B02_s3_w2.tif", bright)
    (folder / "P_B02_s1_w1.tif").unlink()
    ingest_plates(make_settings(on_missing="fill"))
    found = pl.read_parquet(tmp_path / "out" / "P.cellvim" / "quality.parquet")
    assert found.height == 20
    by_plane = {(row["Metadata_Well"], row["Metadata_Site"], row["channel"]): row for row in found.to_dicts()}
    first, second = found["channel"].unique(maintain_order=True)
    row = by_plane["A01", 2, first]
    assert row["empty_fraction"] == pytest.approx(20 / 64)
    assert "partly blank" in row["flags"]
    assert row["mean"] == pytest.approx(blank.mean())
    assert row["p50"] == np.percentile(blank, 50)
    row = by_plane["B02", 3, second]
    assert row["saturated_fraction"] == pytest.approx(8 / 64)
    assert "saturated" in row["flags"]
    assert row["largest"] == 4095
    row = by_plane["B02", 1, first]
    assert not row["is_valid"]
    measures = ("focus_slope", "saturated_fraction", "empty_fraction", "mean", "p50", "p99", "largest")
    assert [row[name] for name in measures] == [None] * 7
    assert row["flags"] == []
    assert sum(bool(row["flags"]) for row in by_plane.values()) == 2


def test_8_bit_values_times_257_are_noted_and_saturate_at_the_top(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_images(wells=("A01",), channels=1, shape=(40, 256))
    for path in folder.iterdir():
        tifffile.imwrite(path, (tifffile.imread(path) * 257).astype(np.uint16))
    ingest_plates(make_settings())
    found = pl.read_parquet(tmp_path / "out" / "P.cellvim" / "quality.parquet")
    assert found["saturated_fraction"].to_list() == [0.0, 0.0]
    assert "8-bit values stored times 257" in (tmp_path / "out" / "P.cellvim" / "qc.html").read_text()


def test_quality_has_the_same_bytes_however_many_workers(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_images(sites=4)
    contents = []
    for workers in (1, 4):
        ingest_plates(make_settings(workers=workers))
        folder = tmp_path / "out" / "P.cellvim"
        contents.append([(folder / name).read_bytes() for name in ("quality.parquet", "qc.html")])
        shutil.rmtree(tmp_path / "out")
    assert contents[0] == contents[1]
