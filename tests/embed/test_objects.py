"""Label images: objects are found and cropped as a plain loop would, and what is wrong with them is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellvim.config import EmbedSettings, IngestSettings, PretrainSettings
from cellvim.dataset import normalize_pixels
from cellvim.embed import embed_plates, require_complete
from cellvim.embed.cutting import describe
from cellvim.embed.masks import LabelImages, masks_sha256
from cellvim.embed.objects import find_objects
from cellvim.errors import InputError, NotFoundError, OutputExistsError, UsageError
from cellvim.ingest import ingest_plates
from cellvim.model import load_encoder
from cellvim.pretrain import pretrain
from cellvim.profiles import aggregate, read_profiles
from cellvim.store import FieldKey, find_plates

SIDE = 64
CELLS = {3: (20, 30, 6), 7: (40, 12, 5), 9: (33, 45, 8)}
"""Number, row, column and radius of the cells of every field; none at the edge."""


def features_of(table: pl.DataFrame) -> np.ndarray:
    return table.select(pl.selectors.starts_with("emb_")).to_numpy()


def disc(row: int, column: int, radius: int) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def labelled(cells: dict[int, tuple[int, int, int]] = CELLS) -> np.ndarray:
    labels = np.zeros((SIDE, SIDE), np.uint16)
    for number, place in cells.items():
        labels[disc(*place)] = number
    return labels


def write_masks(folder: Path, images: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        tifffile.imwrite(folder / name, image)
    return folder


@given(arrays(np.int64, (9, 7), elements=st.sampled_from([0, 0, 0, 2, 5, 2**31])))
def test_objects_are_what_a_loop_finds(labels: np.ndarray) -> None:
    found = find_objects(labels)
    assert found.numbers.tolist() == sorted(set(labels.ravel().tolist()) - {0})
    for index, number in enumerate(found.numbers):
        places = [(y, x) for y in range(9) for x in range(7) if labels[y, x] == number]
        rows, columns = zip(*places, strict=True)
        assert found.areas[index] == len(places)
        box = (min(rows), min(columns), max(rows) + 1, max(columns) + 1)
        assert tuple(found.boxes[index]) == box
        assert tuple(found.centres[index]) == (round(np.mean(rows)), round(np.mean(columns)))
        touches = bool({0, 8} & set(rows) or {0, 6} & set(columns))
        assert found.touches_border(9, 7)[index] == touches
        assert found.is_larger_than(4)[index] == (box[2] - box[0] > 4 or box[3] - box[1] > 4)


@given(labels=arrays(np.int64, (12, 9), elements=st.integers(0, 3)), tile_px=st.integers(1, 14))
def test_crops_stay_inside_and_show_the_centroid(labels: np.ndarray, tile_px: int) -> None:
    found = find_objects(labels)
    for (top, left), (row, column) in zip(found.corners(12, 9, tile_px), found.centres, strict=True):
        assert 0 <= top <= max(0, 12 - tile_px)
        assert 0 <= left <= max(0, 9 - tile_px)
        assert top <= row < top + tile_px
        assert left <= column < left + tile_px


@pytest.mark.parametrize("background", ["keep", "zero"])
def test_a_row_per_object_is_the_crop_around_it(
    make_plate: Any, model: Path, embed_one: Any, tmp_path: Path, background: str
) -> None:
    plate = make_plate(wells=("A01",), sites=1, side_px=SIDE)
    masks = write_masks(tmp_path / "masks", {"A1_01.tif": labelled({**CELLS, 12: (60, 20, 6)})})
    done = embed_one(plate, level="object", masks=masks, object_background=background, batch_size=2)
    assert done.tallies == {
        "objects": 4, "objects_at_edge": 1, "objects_larger_than_tile": 0, "fields_without_object": 0,
    }  # fmt: skip
    table = done.table
    assert table["Metadata_ObjectNumber"].to_list() == list(CELLS)
    assert table["Metadata_ObjectTop"].to_list() == [row - radius for row, _, radius in CELLS.values()]
    assert table["Metadata_ObjectLeft"].to_list() == [column - radius for _, column, radius in CELLS.values()]
    assert table["Metadata_ObjectAreaPx"].to_list() == [int(disc(*place).sum()) for place in CELLS.values()]

    encoder, _ = load_encoder(model)
    key = FieldKey("A01", 1)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    for place, row in zip(CELLS.values(), features_of(table), strict=True):
        raw = plate.read_field(key)
        if background == "zero":
            raw = raw * disc(*place)
        pixels = normalize_pixels(raw, bounds, plate.intensity.moments(key))
        top, left = (min(max(centre - 16, 0), SIDE - 32) for centre in place[:2])
        crop = torch.from_numpy(pixels[None, :, top : top + 32, left : left + 32])
        with torch.inference_mode():
            expected = encoder.features(crop, plate.channels)[0].numpy()
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_objects_average_to_fields_and_fields_to_wells(
    make_plate: Any, embed_one: Any, tmp_path: Path
) -> None:
    plate = make_plate(wells=("A01", "B01"), side_px=SIDE, invalid=(("B01", 2, 0),))
    one = {9: CELLS[9]}
    images = {
        f"{well}_{site}.tif": labelled(CELLS if site == 1 else one)
        for well in ("A01", "B01")
        for site in (1, 2)
    }
    masks = write_masks(tmp_path / "masks" / "P1", images).parent
    objects, fields, wells = (
        embed_one(plate, level=level, masks=masks) for level in ("object", "field", "well")
    )
    assert objects.table.group_by("Metadata_Well", maintain_order=True).len()["len"].to_list() == [4, 3]
    means = objects.table.group_by("Metadata_Well", "Metadata_Site", maintain_order=True).agg(
        pl.selectors.starts_with("emb_").mean()
    )
    np.testing.assert_allclose(features_of(fields.table), features_of(means), atol=1e-6)
    assert fields.table["Metadata_ObjectCount"].to_list() == [3, 1, 3]
    assert fields.left_out == objects.left_out == {"P1 B01/2": "a channel has no valid plane"}
    expected = features_of(fields.table)[:2].mean(0)
    np.testing.assert_allclose(features_of(wells.table)[0], expected, atol=1e-6)
    assert wells.table["Metadata_ObjectCount"].to_list() == [4, 4]
    assert wells.table["Metadata_FieldCount"].to_list() == [2, 2]


def test_profiles_average_objects_as_embed_does(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plate = make_plate(wells=("A01", "B01"), side_px=SIDE)
    images = {
        f"{well}_{site}.tif": labelled({3: CELLS[3], 9: CELLS[9]} if site == 1 else CELLS)
        for well in ("A01", "B01")
        for site in (1, 2)
    }
    masks = write_masks(tmp_path / "masks", images)
    content = {"plates": [plate.path], "model": model, "device": "cpu", "masks": masks}
    for level in ("object", "well"):
        embed_plates(EmbedSettings.checked({**content, "level": level, "out": tmp_path / f"{level}.parquet"}))
    averaged = aggregate(read_profiles(tmp_path / "object.parquet"))
    np.testing.assert_allclose(
        averaged.features, features_of(pl.read_parquet(tmp_path / "well.parquet")), atol=1e-6
    )


BAD_IMAGES = {
    "label image A01_2.tif holds float32 numbers, not whole ones": labelled().astype(np.float32),
    "label image A01_2.tif is 64 x 63 px, its field 64 x 64": labelled()[:, :63],
    "label image A01_2.tif is 2 x 64 x 64 px, its field 64 x 64": np.stack([labelled()] * 2),
    "label image A01_2.tif holds negative labels": -labelled().astype(np.int32),
    "label image A01_2.tif holds labels beyond 2**63": labelled().astype(np.uint64) << np.uint64(61),
    "no label image A01_2.tif": None,
}


@pytest.mark.parametrize(("why", "image"), BAD_IMAGES.items(), ids=[why[12:40] for why in BAD_IMAGES])
def test_what_is_wrong_with_a_label_image_costs_its_field_and_is_said(
    make_plate: Any, embed_one: Any, tmp_path: Path, why: str, image: np.ndarray | None
) -> None:
    plate = make_plate(wells=("A01", "A02"), side_px=SIDE)
    images = {"A01_1.tif": labelled(), "A02_1.tif": labelled(), "A02_2.tif": labelled(), "A01_2.tif": image}
    masks = write_masks(tmp_path / "masks", {name: each for name, each in images.items() if each is not None})
    done = embed_one(plate, masks=masks)
    assert done.left_out == {"P1 A01/2": why}
    assert done.table["Metadata_FieldCount"].to_list() == [1, 2]
    (masks / "A01_1.tif").unlink()
    done = embed_one(plate, masks=masks)
    # The reason of the well is that of its first field.
    assert done.failed == {"P1 A01": "no label image A01_1.tif"}
    assert done.table["Metadata_Well"].to_list() == ["A02"]


NO_WHOLE_OBJECT = {"nothing": np.zeros((SIDE, SIDE), np.uint8), "only at the edge": labelled({1: (2, 30, 6)})}


@pytest.mark.parametrize("image", NO_WHOLE_OBJECT.values(), ids=NO_WHOLE_OBJECT)
@pytest.mark.parametrize("level", ["well", "field", "object"])
def test_a_field_without_a_whole_object_is_no_failure(
    make_plate: Any, embed_one: Any, tmp_path: Path, image: np.ndarray, level: str
) -> None:
    plate = make_plate(wells=("A01", "A02", "A03"), side_px=SIDE)
    images = {f"{well}_{site}.tif": image for well in ("A01", "A02", "A03") for site in (1, 2)}
    masks = write_masks(tmp_path / "masks", {**images, "A01_2.tif": labelled()})
    done = embed_one(plate, masks=masks, level=level)
    assert (done.failed, done.left_out) == ({}, {})
    assert done.empty == dict.fromkeys(("P1 A02", "P1 A03"), "no whole object in its label images")
    assert set(done.table["Metadata_Well"]) == {"A01"}
    assert done.tallies["fields_without_object"] == 5
    # A field that nobody could look at may have had objects.
    (masks / "A02_1.tif").unlink()
    done = embed_one(plate, masks=masks, level=level)
    assert done.failed == {"P1 A02": "no label image A02_1.tif"}
    assert list(done.empty) == ["P1 A03"]


def test_a_well_without_cells_is_counted_apart_and_the_command_succeeds(
    make_plate: Any, model: Path, tmp_path: Path
) -> None:
    plate = make_plate(wells=("A01", "A02"), sites=1, side_px=SIDE)
    masks = write_masks(tmp_path / "masks", {"A01_1.tif": labelled(), "A02_1.tif": labelled({})})
    content = {"plates": [plate.path], "model": model, "device": "cpu", "masks": masks, "level": "object"}
    summary = embed_plates(EmbedSettings.checked({**content, "out": tmp_path / "cells.parquet"}))
    require_complete(summary)
    assert (summary.wells, summary.embedded, len(summary.empty)) == (2, 1, 1)
    assert "2 wells = 1 embedded + 0 failed + 1 without objects" in str(summary)
    about = json.loads(pq.read_schema(tmp_path / "cells.parquet").metadata[b"cellvim"])
    assert about["empty"] == summary.empty
    (masks / "A01_1.tif").write_bytes((masks / "A02_1.tif").read_bytes())
    with pytest.raises(InputError, match="none of the 2 wells could be embedded: no whole object"):
        embed_plates(EmbedSettings.checked({**content, "out": tmp_path / "none.parquet"}))


def test_a_file_that_is_no_tiff_costs_its_field(make_plate: Any, embed_one: Any, tmp_path: Path) -> None:
    plate = make_plate(wells=("A01",), side_px=SIDE)
    masks = write_masks(tmp_path / "masks", {"A01_1.tif": labelled()})
    (masks / "A01_2.tif").write_bytes(b"not a picture")
    assert "A01_2.tif cannot be read" in embed_one(plate, masks=masks).left_out["P1 A01/2"]


@pytest.mark.parametrize("value", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_mask_of_one_value_is_split_into_its_parts(tmp_path: Path, value: int, dtype: type) -> None:
    mask = ((labelled() > 0) * value).astype(dtype)
    masks = write_masks(tmp_path / "masks", {"A01_1.tif": mask, "A01_2.tiff": labelled({4: CELLS[3]})})
    images = LabelImages.of_plate(masks, "P1")
    parts = images.read(FieldKey("A01", 1), (SIDE, SIDE))
    assert sorted(np.unique(parts)) == [0, 1, 2, 3]
    for number in CELLS:
        assert np.unique(parts[labelled() == number]).size == 1
    # A single object keeps its number.
    assert set(np.unique(images.read(FieldKey("A01", 2), (SIDE, SIDE)))) == {0, 4}


def test_label_images_are_refused_where_they_cannot_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder of label images"):
        masks_sha256(tmp_path / "masks", ["P1"])
    masks = write_masks(tmp_path / "masks", {"nuclei of A01.tif": labelled()})
    with pytest.raises(
        InputError, match=r"no label image of plate P1 .*: such as nuclei of A01.tif"
    ) as refused:
        masks_sha256(masks, ["P1"])
    assert "PLATE/WELL_SITE.tif" in refused.value.hint
    write_masks(masks, {"A01_1.tif": labelled()})
    masks_sha256(masks, ["P1"])
    with pytest.raises(InputError, match="cannot be of 2 plates"):
        masks_sha256(masks, ["P1", "P2"])
    write_masks(masks, {"A1_s1.tiff": labelled()})
    with pytest.raises(InputError, match=r"two label images of field A01/1: A01_1.tif and A1_s1.tiff"):
        masks_sha256(masks, ["P1"])


REFUSED: dict[str, dict[str, Any]] = {
    "level object needs label images": {"level": "object"},
    "object_background zero needs label images": {"object_background": "zero"},
    "level crop is about tiles": {"level": "crop", "masks": "m"},
    "overlap is about tiles": {"overlap": 0.1, "masks": "m"},
    "min_content is about tiles": {"min_content": 0.1, "masks": "m"},
}


@pytest.mark.parametrize(("why", "content"), REFUSED.items(), ids=REFUSED)
def test_settings_that_contradict_each_other_are_refused(why: str, content: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=why):
        EmbedSettings.checked({"plates": ["p"], "model": "m", "out": "o.parquet", **content})


def test_label_images_go_by_their_content_not_by_their_place(
    make_plate: Any, model: Path, tmp_path: Path
) -> None:
    plate = make_plate(wells=("A01",), sites=1, side_px=SIDE)
    here = write_masks(tmp_path / "here", {"A01_1.tif": labelled()})
    there = write_masks(tmp_path / "there" / "P1", {"A01_1.tif": labelled()}).parent
    out = tmp_path / "cells.parquet"
    content = {"plates": [plate.path], "model": model, "out": out, "device": "cpu", "level": "object"}
    settings = EmbedSettings.checked({**content, "masks": here})
    assert not embed_plates(settings).was_done
    about = json.loads(pq.read_schema(out).metadata[b"cellvim"])
    assert describe(settings, ["P1"]).items() <= {**about, **about.get("cutting", {})}.items()
    assert embed_plates(EmbedSettings.checked({**content, "masks": there})).was_done
    write_masks(here, {"A01_1.tif": labelled({3: CELLS[3]})})
    with pytest.raises(OutputExistsError):
        embed_plates(settings)


def test_real_nuclei_are_embedded_one_by_one(shared: Path, tmp_path: Path) -> None:
    data = shared / "data/nf1_schwann"
    pattern = "{well}_{}_{}_{field}_{channel}_{}.tif"
    plates = tmp_path / "plates"
    ingest_plates(IngestSettings(sources=(data / "images",), out=plates, pattern=pattern, plate="NF1"))
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in sorted((data / "masks").glob("*MaskNuclei.tiff")):
        well, site = path.name.split("_")[0], path.name.split("_")[3]
        (masks / f"{well}_{site}.tiff").symlink_to(path)
    run = tmp_path / "run"
    pretrain(PretrainSettings.checked({"plates": [plates], "out": run, "steps": 0, "device": "cpu"}))
    content = {"plates": [plates], "model": run, "out": tmp_path / "nuclei.parquet", "device": "cpu"}
    summary = embed_plates(
        EmbedSettings.checked({**content, "level": "object", "masks": masks, "tile_px": 96})
    )
    assert (summary.wells, summary.embedded, summary.failed) == (5, 5, {})
    table = pl.read_parquet(tmp_path / "nuclei.parquet")
    counts = dict(table.group_by("Metadata_Well").len().iter_rows())
    (plate,) = find_plates([plates])
    assert str(plate).endswith("NF1.ome.zarr")
    for path in masks.iterdir():
        well, site = path.stem.split("_")
        labels = LabelImages.of_plate(masks, "NF1").read(
            FieldKey(f"{well[0]}{int(well[1:]):02d}", int(site)), (904, 1224)
        )
        inner = set(np.unique(labels)) - set(
            np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))
        )
        assert counts[f"{well[0]}{int(well[1:]):02d}"] == len(inner - {0}) > 3
    assert np.isfinite(features_of(table)).all()
    assert features_of(table).std(axis=0).max() > 0.01
