"""Embedding keeps the books: wells in = embedded + failed, and every number can be made again."""

import hashlib
import json
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from cellvim.config import EmbedSettings
from cellvim.dataset import normalize_pixels
from cellvim.embed import embed_plates, require_complete
from cellvim.embed.fields import picture_field
from cellvim.errors import ExitCode, InputError, OutputExistsError, SomeFailedError
from cellvim.model import ModelCard, load_encoder, save_encoder
from cellvim.store import FieldKey, PlateReader

WIDTH = 16


def rewrite_card(run: Path, **changes: Any) -> None:
    encoder, card = load_encoder(run)
    save_encoder(run, encoder.state_dict(), ModelCard.checked({**card.model_dump(), **changes}))


def settings_for(plates: list[PlateReader], model: Path, out: Path, **changes: Any) -> EmbedSettings:
    paths = [plate.path for plate in plates]
    return EmbedSettings.checked({"plates": paths, "model": model, "out": out, "device": "cpu", **changes})


def features_of(table: pl.DataFrame) -> np.ndarray:
    return table.select(pl.selectors.starts_with("emb_")).to_numpy()


def test_a_well_is_the_mean_of_its_fields_and_a_field_of_its_tiles(
    make_plate: Any, model: Path, tmp_path: Path
) -> None:
    plate = make_plate()
    summary = embed_plates(settings_for([plate], model, tmp_path / "wells.parquet", batch_size=3))
    table = pl.read_parquet(tmp_path / "wells.parquet")

    encoder, _ = load_encoder(model)
    expected = []
    for site in (1, 2):
        key = FieldKey("A02", site)
        raw = plate.read_field(key).astype(np.float64)
        bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
        clipped = np.clip(raw, bounds[:, :1, None], bounds[:, 1:, None])
        moments = np.stack([clipped.mean((1, 2)), clipped.std((1, 2))], 1)
        pixels = torch.from_numpy(normalize_pixels(raw, bounds, moments))
        with torch.inference_mode():
            tiles = [pixels[None, :, top : top + 32, left : left + 32] for top in (0, 16) for left in (0, 16)]
            tokens = [encoder.tokens(tile, plate.channels).mean((2, 3)).flatten() for tile in tiles]
        expected.append(torch.stack(tokens).double().mean(0))
    row = features_of(table.filter(Metadata_Well="A02"))[0]
    np.testing.assert_allclose(row, torch.stack(expected).mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert (summary.wells, summary.embedded, summary.failed) == (4, 4, {})
    assert table["Metadata_FieldCount"].to_list() == [2] * 4


def test_table_follows_the_contract(make_plate: Any, model: Path, tmp_path: Path) -> None:
    platemap = pl.DataFrame(
        {
            "Metadata_Well": ["A01", "A02", "B01", "C12"],
            "Metadata_Perturbation": ["DMSO", "drug", "drug", "drug"],
            "Metadata_ControlType": ["negcon", None, None, None],
        }
    )
    out = tmp_path / "embeddings.parquet"
    embed_plates(settings_for([make_plate(platemap=platemap)], model, out))
    schema = pq.read_schema(out)
    assert schema.names[:2] == ["Metadata_Plate", "Metadata_Well"]
    features = [name for name in schema.names if not name.startswith("Metadata_")]
    assert features == [f"emb_{index:04d}" for index in range(3 * WIDTH)]
    assert {str(schema.field(name).type) for name in features} == {"float"}
    assert pq.ParquetFile(out).metadata.row_group(0).column(0).compression == "ZSTD"
    table = pl.read_parquet(out)
    assert dict(table.select("Metadata_Well", "Metadata_Perturbation").iter_rows()) == {
        "A01": "DMSO", "A02": "drug", "B01": "drug", "B02": None,
    }  # fmt: skip
    about = json.loads(schema.metadata[b"cellvim"])
    assert about["channels"] == ["DNA", "ER", "Mito"]
    assert about["model"]["is_trained"] is False
    thumbnails = pl.read_parquet(tmp_path / "embeddings.thumbnails.parquet")
    assert thumbnails["Metadata_Well"].to_list() == ["A01", "A02", "B01", "B02"]
    assert all(png.startswith(b"\x89PNG") for png in thumbnails["png"])
    assert (tmp_path / "embeddings.run.json").exists()
    assert not (tmp_path / "embeddings.parquet.parts").exists()


@pytest.mark.parametrize(("level", "rows"), [("well", 4), ("field", 8), ("crop", 32)])
def test_levels_have_their_rows_and_agree_on_the_mean(
    make_plate: Any, model: Path, tmp_path: Path, level: str, rows: int
) -> None:
    plate = make_plate()
    wells, table = tmp_path / "wells.parquet", tmp_path / f"{level}.parquet"
    embed_plates(settings_for([plate], model, wells))
    embed_plates(settings_for([plate], model, table, level=level, overwrite=True))
    found = pl.read_parquet(table)
    assert found.height == rows
    means = found.group_by("Metadata_Well", maintain_order=True).agg(pl.selectors.starts_with("emb_").mean())
    np.testing.assert_allclose(features_of(means), features_of(pl.read_parquet(wells)), atol=1e-5)


def test_pooling_over_everything_is_the_mean_over_channels(
    make_plate: Any, model: Path, tmp_path: Path
) -> None:
    plate = make_plate()
    embed_plates(settings_for([plate], model, tmp_path / "channel.parquet"))
    embed_plates(settings_for([plate], model, tmp_path / "all.parquet", pool="all"))
    per_channel = features_of(pl.read_parquet(tmp_path / "channel.parquet")).reshape(4, 3, WIDTH)
    pooled = features_of(pl.read_parquet(tmp_path / "all.parquet"))
    np.testing.assert_allclose(per_channel.mean(1), pooled, atol=1e-5)


def test_intensity_appends_what_normalisation_removed(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plate = make_plate(sites=1)
    embed_plates(settings_for([plate], model, tmp_path / "e.parquet", has_intensity=True))
    table = features_of(pl.read_parquet(tmp_path / "e.parquet"))
    assert table.shape[1] == 3 * WIDTH + 6
    expected = np.stack([plate.intensity.moments(key).reshape(-1) for key in plate.fields])
    np.testing.assert_allclose(table[:, -6:], expected, rtol=1e-6)


def test_filled_plane_is_not_shown_to_the_encoder(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plate = make_plate(invalid=(("A01", 1, 0), ("B02", 1, 2), ("B02", 2, 2)))
    summary = embed_plates(settings_for([plate], model, tmp_path / "e.parquet"))
    assert summary.failed == {"P1 B02": "a channel has no valid plane"}
    assert summary.wells == summary.embedded + len(summary.failed) == 4
    with pytest.raises(SomeFailedError, match="1 wells and 0 fields failed, first P1 B02"):
        require_complete(summary)
    table = pl.read_parquet(tmp_path / "e.parquet")
    assert not np.isnan(features_of(table)).any()

    by_field = embed_plates(settings_for([plate], model, tmp_path / "fields.parquet", level="field"))
    assert set(by_field.left_out) == {"P1 A01/1", "P1 B02/1", "P1 B02/2"}
    fields = pl.read_parquet(tmp_path / "fields.parquet")
    only = features_of(fields.filter(Metadata_Well="A01", Metadata_Site=2))[0]
    well = features_of(table.filter(Metadata_Well="A01"))[0]
    np.testing.assert_allclose(well[:WIDTH], only[:WIDTH], atol=1e-6)

    encoder, _ = load_encoder(model)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    key = FieldKey("A01", 1)
    pixels = torch.from_numpy(normalize_pixels(plate.read_field(key), bounds, plate.intensity.moments(key)))
    with torch.inference_mode():
        tiles = [pixels[None, 1:, top : top + 32, left : left + 32] for top in (0, 16) for left in (0, 16)]
        seen = torch.stack([encoder.features(tile, plate.channels[1:])[0] for tile in tiles]).mean(0).numpy()
    np.testing.assert_allclose(2 * well[WIDTH:] - only[WIDTH:], seen, rtol=1e-4, atol=1e-5)


def test_damaged_field_is_left_out_and_named(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plate = make_plate()
    for well, site in (("A01", 1), ("B01", 1), ("B01", 2)):
        shard = next((plate.path / FieldKey(well, site).group / "0" / "c").rglob("0"))
        shard = shard if shard.is_file() else next(path for path in shard.rglob("*") if path.is_file())
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    summary = embed_plates(settings_for([plate], model, tmp_path / "e.parquet"))
    assert set(summary.left_out) == {"P1 A01/1", "P1 B01/1", "P1 B01/2"}
    assert set(summary.failed) == {"P1 B01"}
    table = pl.read_parquet(tmp_path / "e.parquet")
    counts = dict(table.select("Metadata_Well", "Metadata_FieldCount").iter_rows())
    assert counts == {"A01": 1, "A02": 2, "B02": 2}
    pictures = dict(
        pl.read_parquet(tmp_path / "e.thumbnails.parquet").select("Metadata_Well", "png").iter_rows()
    )
    assert pictures["A01"] == picture_field(plate, FieldKey("A01", 2))
    assert pictures["A02"] == picture_field(plate, FieldKey("A02", 1))


def test_second_run_is_the_same_bytes_and_costs_nothing(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plates = [make_plate("P1"), make_plate("P2")]
    settings = settings_for(plates, model, tmp_path / "a.parquet")
    first = embed_plates(settings)
    again = embed_plates(settings)
    assert again.was_done
    assert (again.rows, again.features, again.wells, again.embedded) == (8, 3 * WIDTH, 8, 8)
    assert first.as_dict() == {**again.as_dict(), "was_done": False}
    embed_plates(settings_for(plates, model, tmp_path / "b.parquet"))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    with pytest.raises(OutputExistsError, match="other plates, settings or weights"):
        embed_plates(settings_for(plates, model, tmp_path / "a.parquet", pool="all"))


def test_killed_run_resumes_at_the_next_plate(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plates = [make_plate("P1"), make_plate("P2")]
    whole, broken = (
        settings_for(plates, model, tmp_path / f"{name}.parquet") for name in ("whole", "broken")
    )
    embed_plates(whole)
    script = f"""
import os, sys
from cellvim.config import EmbedSettings
from cellvim.embed import embed_plates, parts
embed_plate = parts.embed_plate
def embed_and_die(plate, *args, **kwargs):
    if plate.name == "P2":
        os.kill(os.getpid(), {int(signal.SIGKILL)})
    return embed_plate(plate, *args, **kwargs)
parts.embed_plate = embed_and_die
embed_plates(EmbedSettings.model_validate_json(sys.argv[1]))
"""
    killed = subprocess.run([sys.executable, "-c", script, broken.model_dump_json()], check=False)
    assert killed.returncode == -signal.SIGKILL
    part = tmp_path / "broken.parquet.parts/P1.parquet"
    assert part.exists()
    assert not broken.out.exists()
    embed_plates(broken)
    assert not part.exists()
    digests = {hashlib.sha256(settings.out.read_bytes()).hexdigest() for settings in (whole, broken)}
    assert len(digests) == 1


def test_plates_that_cannot_share_a_table_are_refused(make_plate: Any, model: Path, tmp_path: Path) -> None:
    plates = [make_plate("P1"), make_plate("P2", channels=("DNA", "ER"))]
    with pytest.raises(InputError, match="per-channel features would not line up"):
        embed_plates(settings_for(plates, model, tmp_path / "e.parquet"))
    assert embed_plates(settings_for(plates, model, tmp_path / "e.parquet", pool="all")).embedded == 8


UNTRAINED_ROWS: dict[str, dict[str, Any]] = {
    "untrained": {},
    "imported": {"is_trained": True, "steps": 5, "origin": "file.ckpt"},
    "names never dropped": {"is_trained": True, "steps": 5, "is_unknown_trained": False},
}


@pytest.mark.parametrize("changes", UNTRAINED_ROWS.values(), ids=UNTRAINED_ROWS)
def test_a_stain_that_the_model_cannot_know_is_refused(
    make_plate: Any, model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    rewrite_card(model, **changes)
    plates = [make_plate("P1"), make_plate("P2", channels=("DNA", "Hoechst", "ConA"))]
    settings = settings_for(plates, model, tmp_path / "e.parquet", pool="all")
    with pytest.raises(
        InputError, match=r"knows DNA, ER, Mito, and never learned .*: Hoechst, ConA"
    ) as refused:
        embed_plates(settings)
    assert refused.value.exit_code == ExitCode.BAD_INPUT == 3
    assert "--channels" in str(refused.value.hint)
    assert not settings.out.exists()
    assert embed_plates(settings.model_copy(update={"plates": (plates[0].path,)})).embedded == 4


def test_a_stain_unknown_to_a_model_that_learned_such_is_embedded_and_named(
    make_plate: Any, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite_card(model, is_trained=True, steps=5, is_unknown_trained=True)
    plates = [make_plate(name, channels=("dna", "Hoechst", "Mito")) for name in ("P1", "P2")]
    out = tmp_path / "e.parquet"
    with caplog.at_level(logging.WARNING, logger="cellvim"):
        assert embed_plates(settings_for(plates, model, out)).embedded == 8
    assert [record.getMessage() for record in caplog.records] == [
        "the model knows DNA, ER, Mito; all others go by one name, `unknown`: Hoechst"
    ]
    assert json.loads(pq.read_schema(out).metadata[b"cellvim"])["unknown_stains"] == ["Hoechst"]
    assert json.loads((tmp_path / "e.run.json").read_text())["facts"]["unknown_stains"] == ["Hoechst"]
    caplog.clear()
    known = tmp_path / "known.parquet"
    with caplog.at_level(logging.WARNING, logger="cellvim"):
        embed_plates(settings_for([make_plate("P3")], model, known))
    assert not caplog.records
    assert json.loads(pq.read_schema(known).metadata[b"cellvim"])["unknown_stains"] == []
