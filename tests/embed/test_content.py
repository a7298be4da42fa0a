"""What counts as content: cells do; noise, emptiness and invalid planes do not. A toxic well keeps its row."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from cellvim.config import EmbedSettings
from cellvim.embed import embed_plates
from cellvim.embed.content import background_levels, is_bright, shares
from cellvim.embed.cutting import Cutting
from cellvim.embed.fields import tile_field
from cellvim.embed.tiling import tiles
from cellvim.errors import UsageError
from cellvim.store import FieldKey, Intensity

BAR = 0.02
KEYS = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_CropTop", "Metadata_CropLeft"]


def features_of(table: pl.DataFrame) -> np.ndarray:
    return table.select(pl.selectors.starts_with("emb_")).to_numpy()


def noise(side_px: int = 64, *, seed: int = 0, deviation: float = 20) -> np.ndarray:
    """Background as a camera shows it."""
    return np.random.default_rng(seed).normal(300, deviation, (1, side_px, side_px)).clip(0)


def with_cells(pixels: np.ndarray, *, left: int = 0, right: int = 64) -> np.ndarray:
    """Bright discs, 16 px apart, in some columns of a field."""
    y, x = np.mgrid[: pixels.shape[1], : pixels.shape[2]]
    is_cell = ((y % 16 - 8) ** 2 + (x % 16 - 8) ** 2 < 16) & (x >= left) & (x < right)
    return pixels + 1500 * is_cell


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2])
def test_the_level_is_beyond_the_noise_however_much_of_the_plate_is_background(share: float) -> None:
    # Background 300 +- 20, the rest far above it.
    quantiles = {key: 300 + 20 * norm.ppf(float(key) / 100 / share) for key in ("0.1", "1")}
    for brightest in (quantiles["1"], 400.0):
        plate = Intensity(("DNA",), {"DNA": {**quantiles, "99": brightest}}, {})
        (level,) = background_levels(plate, ("DNA",))
        assert 3 < (level - 300) / 20 < 5
    # With much brighter cells, a tenth of the way to them still counts as background.
    (level,) = background_levels(Intensity(("DNA",), {"DNA": {**quantiles, "99": 5000.0}}, {}), ("DNA",))
    assert level == pytest.approx(quantiles["1"] + (5000 - quantiles["1"]) / 10)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 0.8))
def test_shares_are_counted_pixels(seed: int, tile_px: int, overlap: float) -> None:
    bright = np.random.default_rng(seed).random((40, 25)) < 0.3
    corners = list(tiles(40, 25, tile_px, overlap))
    counted = [
        np.mean(
            [
                bright[y, x]
                for y in range(top, min(40, top + tile_px))
                for x in range(left, min(25, left + tile_px))
            ]
        )
        for top, left in corners
    ]
    np.testing.assert_allclose(shares(bright, corners, tile_px), counted)


def test_any_valid_channel_may_be_bright_and_an_invalid_one_never_is() -> None:
    pixels = np.zeros((3, 9, 9), np.uint16)
    pixels[1, :3], pixels[2, 6:] = 100, 100
    levels = np.array([10.0, 10.0, 10.0])
    rows = [0.0, 0.0, 1.0]
    valid = is_bright(pixels, levels, np.array([True, False, True]))
    np.testing.assert_array_equal(valid.reshape(3, 3, 9).mean((1, 2)).round(), rows)
    assert is_bright(pixels, levels, np.array([True, True, True])).mean() > valid.mean()
    assert not is_bright(pixels, levels, np.array([True, False, False])).any()


def test_a_hot_pixel_is_no_content() -> None:
    pixels = np.zeros((1, 64, 64), np.uint16)
    pixels[0, 30, 30] = 60
    assert not is_bright(pixels, np.array([10.0]), np.array([True])).any()
    pixels[0, 29:32, 29:32] = 60
    assert is_bright(pixels, np.array([10.0]), np.array([True])).any()


def contents(
    plate: Any, well: str, *, min_content: float = BAR, tile_px: int = 32
) -> dict[tuple[int, int], float]:
    """Content of each tile that is kept."""
    cutting = Cutting(tile_px, min_content=min_content)
    cut = tile_field(plate, FieldKey(well, 1), cutting, needs_all=False).cut
    return dict(zip(cut.corners, cut.columns["Metadata_ContentFraction"].tolist(), strict=True))


def test_cells_are_content_and_empty_noise_and_half_empty_fields_are_told_apart(write_plate: Any) -> None:
    fields = {
        "A01": with_cells(noise(seed=1)),
        "A02": noise(seed=2),
        "A03": with_cells(noise(seed=3), right=32),
        "A04": noise(seed=4, deviation=60),
        "A05": np.full((1, 64, 64), 300.0),
    }
    plate = write_plate({FieldKey(well, 1): pixels for well, pixels in fields.items()})
    full = contents(plate, "A01")
    assert len(full) == 4
    assert min(full.values()) > 0.1
    assert set(contents(plate, "A03")) == {(0, 0), (32, 0)}
    # Without a tile above the bar all are kept: noise, also three times as much of it, and a flat field.
    for well in ("A02", "A04", "A05"):
        empty = contents(plate, well)
        assert len(empty) == 4
        assert max(empty.values()) < BAR


def test_cells_of_real_fields_are_content_and_their_own_background_is_not(
    shared: Path, write_plate: Any
) -> None:
    paths = sorted((shared / "data/bbbc013/images").glob("Channel2-*.tif"))[:3]
    real = [tifffile.imread(path)[None].astype(np.uint16) for path in paths]
    # Emptied: every pixel is one of the field's own darkest fifth, in random order.
    dark = np.sort(real[0].ravel())[: real[0].size // 5]
    empty = np.random.default_rng(0).choice(dark, real[0].shape)
    half = real[0].copy()
    half[:, :, 320:] = empty[:, :, 320:]
    names = ("A01", "A02", "A03", "A04", "A05")
    plate = write_plate(
        {FieldKey(name, 1): pixels for name, pixels in zip(names, [*real, empty, half], strict=True)}
    )
    for well in names[:3]:
        assert min(contents(plate, well, tile_px=160).values()) > 0.05
        assert len(contents(plate, well, tile_px=160)) == 16
    assert max(contents(plate, "A04", tile_px=160).values()) == 0
    assert {left for _, left in contents(plate, "A05", tile_px=160)} == {0, 160}


@pytest.mark.parametrize("level", ["well", "field", "crop"])
def test_rows_are_those_of_the_tiles_with_content(write_plate: Any, embed_one: Any, level: str) -> None:
    fields = {
        FieldKey("A01", 1): with_cells(noise(seed=1)),
        FieldKey("A01", 2): with_cells(noise(seed=2), right=32),
        FieldKey("A01", 3): noise(seed=3),
        FieldKey("B01", 1): noise(seed=4),
        FieldKey("B01", 2): noise(seed=5),
    }
    plate = write_plate(fields)
    all_crops = embed_one(plate, level="crop").table
    crops = embed_one(plate, level="crop", min_content=BAR)
    table = embed_one(plate, level=level, min_content=BAR).table
    kept = {("A01", 1): 4, ("A01", 2): 2, ("A01", 3): 4, ("B01", 1): 4, ("B01", 2): 4}
    found = crops.table.group_by("Metadata_Well", "Metadata_Site").len()
    assert {(well, site): count for well, site, count in found.iter_rows()} == kept
    same = crops.table.select(KEYS).join(all_crops, on=KEYS, how="left", maintain_order="left")
    np.testing.assert_allclose(features_of(crops.table), features_of(same), atol=1e-5)
    assert crops.tallies == {"tiles": 20, "tiles_dropped": 2, "fields_without_content": 3}
    by_field = crops.table.group_by(KEYS[:3], maintain_order=True).agg(
        pl.selectors.starts_with("emb_").mean()
    )
    if level == "field":
        np.testing.assert_allclose(features_of(table), features_of(by_field), atol=1e-5)
        assert table["Metadata_TileCount"].to_list() == list(kept.values())
        share = table["Metadata_ContentFraction"].to_list()
        assert share[0] > share[1] > 0.1
        assert max(share[2:]) < BAR
    if level == "well":
        # The empty field of A01 does not count; B01 has no other, and keeps both.
        means = [features_of(by_field)[rows].mean(0) for rows in ([0, 1], [3, 4])]
        np.testing.assert_allclose(features_of(table), means, atol=1e-5)
        assert table["Metadata_FieldCount"].to_list() == [2, 2]
        assert table["Metadata_TileCount"].to_list() == [6, 8]
        of_fields = embed_one(plate, level="field", min_content=BAR).table["Metadata_ContentFraction"]
        expected = [of_fields[:3].mean(), of_fields[3:].mean()]
        assert table["Metadata_ContentFraction"].to_list() == pytest.approx(expected)


def test_the_summary_counts_what_was_dropped(write_plate: Any, model: Path, tmp_path: Path) -> None:
    plate = write_plate(
        {FieldKey("A01", 1): with_cells(noise(), right=32), FieldKey("B01", 1): noise(seed=1)}
    )
    content = {"plates": [plate.path], "model": model, "out": tmp_path / "e.parquet", "device": "cpu"}
    summary = embed_plates(EmbedSettings.checked({**content, "min_content": BAR}))
    assert summary.tallies == {"tiles": 8, "tiles_dropped": 2, "fields_without_content": 1}
    assert "tiles dropped: 2" in str(summary)
    plain = embed_plates(EmbedSettings.checked({**content, "out": tmp_path / "plain.parquet"}))
    assert plain.tallies == {}


def test_a_well_without_content_has_the_row_it_has_without_the_rule(write_plate: Any, embed_one: Any) -> None:
    plate = write_plate({FieldKey("A01", 1): with_cells(noise()), FieldKey("B01", 1): noise(seed=1)})
    plain, ruled = (embed_one(plate, min_content=bar).table for bar in (0.0, BAR))
    np.testing.assert_array_equal(features_of(plain)[1], features_of(ruled)[1])
    assert [name for name in ruled.columns if name not in plain.columns] == [
        "Metadata_TileCount",
        "Metadata_ContentFraction",
    ]


def test_a_channel_that_only_an_empty_field_shows_is_taken_from_there(
    write_plate: Any, embed_one: Any
) -> None:
    keys = [FieldKey("A01", 1), FieldKey("A01", 2), FieldKey("B01", 1)]
    cells, nothing = (np.concatenate([field, field]) for field in (with_cells(noise()), noise(seed=1)))
    plate = write_plate(
        dict(zip(keys, (cells, nothing, cells), strict=True)), ("DNA", "ER"), invalid=[(keys[0], 1)]
    )
    fields = embed_one(plate, level="field", pool="channel", min_content=BAR)
    assert fields.left_out == {"P1 A01/1": "a channel has no valid plane"}
    assert fields.tallies["fields_without_content"] == 1
    wells = embed_one(plate, min_content=BAR)
    assert wells.failed == {}
    dna, er = np.split(features_of(wells.table)[0], 2)
    np.testing.assert_allclose(er, np.split(features_of(fields.table)[0], 2)[1], atol=1e-5)
    assert np.abs(dna - np.split(features_of(fields.table)[0], 2)[0]).max() > 1e-3


TILINGS: dict[str, dict[str, Any]] = {
    "content": {"min_content": BAR, "level": "crop"},
    "wells": {"min_content": BAR, "overlap": 0.5, "has_intensity": True},
    "blocks": {"each_layer": True, "overlap": 0.3, "level": "field"},
    "objects": {"level": "object", "masks": True, "object_background": "zero"},
}


@pytest.mark.parametrize("settings", TILINGS.values(), ids=TILINGS)
def test_what_an_invalid_plane_holds_changes_nothing(
    write_plate: Any, embed_one: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    keys = [FieldKey("A01", 1), FieldKey("A01", 2), FieldKey("B01", 1)]
    shown = [with_cells(noise(seed=seed), right=32) for seed in range(3)]
    if settings.get("masks"):
        labels = (with_cells(noise() * 0) > 0)[0].astype(np.uint8)
        for key in keys:
            tifffile.imwrite(tmp_path / f"{key.well}_{key.site}.tif", labels)
        settings = {**settings, "masks": tmp_path}
    found = []
    for number, filled in enumerate((np.zeros((1, 64, 64)), with_cells(noise(seed=9)))):
        fields = {
            key: np.concatenate([pixels, pixels[:, ::-1]]) for key, pixels in zip(keys, shown, strict=True)
        }
        fields[keys[1]][1:] = filled
        plate = write_plate(fields, ("DNA", "ER"), folder=f"plates{number}", invalid=[(keys[1], 1)])
        found.append(embed_one(plate, **settings))
    assert found[0].table.equals(found[1].table)
    assert found[0].tallies == found[1].tallies
    assert found[0].left_out == found[1].left_out
    assert found[0].thumbnails.equals(found[1].thumbnails)
    assert found[0].table.height


def test_a_higher_bar_never_keeps_more(write_plate: Any) -> None:
    pixels = with_cells(noise(128, seed=1), right=90)
    plate = write_plate({FieldKey("A01", 1): pixels, FieldKey("A02", 1): noise(128)})
    bars = (0.001, 0.05, 0.1, 0.15)
    kept = [set(contents(plate, "A01", min_content=bar)) for bar in bars]
    assert all(fewer <= more for more, fewer in pairwise(kept))
    assert len(kept[0]) < 16


@pytest.mark.parametrize(("name", "value"), [("min_content", 1.0), ("min_content", -0.1), ("overlap", 0.95)])
def test_shares_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        EmbedSettings.checked({"plates": ["p"], "model": "m", "out": "o.parquet", name: value})
