"""The run over plates: what stays in memory, what is used again, and what a broken run leaves."""

import errno
import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from cellvim import __version__
from cellvim.config import EmbedSettings
from cellvim.embed import embed_plates, parts, run, writer
from cellvim.embed.cutting import Cut
from cellvim.embed.fields import TiledField
from cellvim.embed.plate import EmbeddedPlate
from cellvim.embed.rows import Rows
from cellvim.embed.writer import join_tables, read_metadata, write_table
from cellvim.errors import NotFoundError, OutputExistsError, UsageError
from cellvim.store import FieldKey, PlateReader


def settings_for(plates: list[PlateReader], model: Path, out: Path, **changes: Any) -> EmbedSettings:
    paths = [plate.path for plate in plates]
    return EmbedSettings.checked({"plates": paths, "model": model, "out": out, "device": "cpu", **changes})


@pytest.fixture
def plates(make_plate: Any) -> list[PlateReader]:
    return [make_plate(name, wells=("A01", "B02"), sites=1) for name in ("P1", "P2", "P3")]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the plates that are really embedded, as they are."""
    names: list[str] = []
    embed_plate = parts.embed_plate

    def note(plate: PlateReader, *args: Any, **kwargs: Any) -> EmbeddedPlate:
        names.append(plate.name)
        return embed_plate(plate, *args, **kwargs)

    monkeypatch.setattr(parts, "embed_plate", note)
    return names


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"plates", "run"}


def test_only_one_plate_is_in_memory(
    plates: list[PlateReader], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_plate = parts.embed_plate
    earlier: list[weakref.ref[Any]] = []

    def embed(plate: PlateReader, *args: Any, **kwargs: Any) -> EmbeddedPlate:
        gc.collect()
        assert [held() for held in earlier] == [None] * len(earlier)
        result = embed_plate(plate, *args, **kwargs)
        earlier.extend((weakref.ref(plate), weakref.ref(result)))
        return result

    monkeypatch.setattr(parts, "embed_plate", embed)
    embed_plates(settings_for(plates, model, tmp_path / "e.parquet"))
    assert len(earlier) == 6


@pytest.mark.parametrize("level", ["well", "field", "crop"])
def test_pixels_of_a_field_are_let_go_with_its_features(level: Any) -> None:
    rows = Rows("P1", level)
    pixels = []
    for site in (1, 2, 3):
        field = np.zeros((1, 32, 32), np.float32)
        pixels.append(weakref.ref(field))
        corners = [(0, 0)]
        cut = Cut(corners, {"Metadata_CropTop": np.array([0]), "Metadata_CropLeft": np.array([0])})
        tiled = TiledField(FieldKey("A01", site), np.array([True]), field, np.zeros(1, np.float32), cut, 32)
        rows.add(tiled, np.full((1, 4), site, np.float32))
        del field, tiled
    gc.collect()
    assert [held() for held in pixels] == [None] * 3
    assert rows.to_table()["emb_0000"].mean() == 2


def test_a_plate_is_a_group_of_rows_and_everyone_reads_them_all(
    plates: list[PlateReader], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.parquet"
    embed_plates(settings_for(plates, model, out))
    with pq.ParquetFile(out) as file:
        groups = [
            file.read_row_group(group, columns=["Metadata_Plate"]) for group in range(file.num_row_groups)
        ]
    assert [set(group["Metadata_Plate"].to_pylist()) for group in groups] == [{"P1"}, {"P2"}, {"P3"}]
    assert pl.read_parquet(out).equals(pl.from_pandas(pd.read_parquet(out)))


rows = st.lists(st.integers(0, 99), max_size=8)


@given(st.lists(rows, min_size=1, max_size=4).filter(any), st.integers(1, 5))
def test_joining_is_what_polars_calls_a_diagonal_concatenation(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], most_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("join")
    tables = [
        pl.DataFrame(
            {
                "Metadata_Plate": [f"P{number}"] * len(values),
                # One plate map has numbers, the next has text, and each has a column of its own.
                "Metadata_Dose": values if number % 2 else [str(value) for value in values],
                f"Metadata_Only{number}": values,
                "emb_0000": np.array(values, np.float32) / 7,
            },
            schema_overrides={
                "Metadata_Plate": pl.String,
                "Metadata_Dose": pl.Int64 if number % 2 else pl.String,
                f"Metadata_Only{number}": pl.Int64,
                "emb_0000": pl.Float32,
            },
        )
        for number, values in enumerate(sizes)
    ]
    paths = [folder / f"{number}.parquet" for number in range(len(tables))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "MOST_ROWS", most_rows)
        for path, table in zip(paths, tables, strict=True):
            write_table(path, table, {})
        join_tables(folder / "joined.parquet", paths, {"identity": "x"})
    expected = pl.concat([table for table in tables if table.height], how="diagonal_relaxed")
    found = pl.read_parquet(folder / "joined.parquet")
    assert_frame_equal(found, expected, check_column_order=False)
    assert found.columns[-1] == "emb_0000"
    assert read_metadata(folder / "joined.parquet") == {"identity": "x"}


def test_parts_of_an_interrupted_run_are_used_again_whatever_becomes_of_other_plates(
    plates: list[PlateReader],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    embedded: list[str],
) -> None:
    out = tmp_path / "e.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(run, "join_parts", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_plates(settings_for(plates, model, out))
    assert names_in(tmp_path) == {"e.parquet.parts", "e.run.json"}
    assert embedded == ["P1", "P2", "P3"]
    embedded.clear()
    summary = embed_plates(settings_for([plates[0], plates[2]], model, out))
    assert (embedded, summary.rows, summary.was_done) == ([], 4, False)
    assert pl.read_parquet(out)["Metadata_Plate"].unique().sort().to_list() == ["P1", "P3"]
    with pytest.raises(OutputExistsError, match="other plates, settings or weights"):
        embed_plates(settings_for(plates, model, out))


@pytest.mark.parametrize("changes", [{"pool": "all"}, {"tile_px": 24}, {"batch_size": 3}, {"level": "field"}])
def test_a_part_of_other_settings_is_never_used(
    plates: list[PlateReader],
    model: Path,
    tmp_path: Path,
    embedded: list[str],
    changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run, "join_parts", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_plates(settings_for(plates[:1], model, tmp_path / "e.parquet"))
    embed_plates(settings_for(plates[:1], model, tmp_path / "e.parquet", **changes))
    embed_plates(settings_for(plates[:1], model, tmp_path / "fresh.parquet", **changes))
    assert embedded == ["P1"] * 3
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "fresh.parquet").read_bytes()


def test_plates_whose_folders_share_a_name_are_all_part_of_what_a_table_is_made_from(
    make_plate: Any, model: Path, tmp_path: Path
) -> None:
    for name in ("P1", "P2"):
        plate = make_plate(name, wells=("A01",), sites=1)
        for path in (plate.path, plate.path.with_name(f"{name}.cellvim")):
            (tmp_path / name).mkdir(exist_ok=True)
            path.rename(tmp_path / name / f"X{''.join(path.suffixes)}")
    out = tmp_path / "e.parquet"
    plates = [PlateReader(tmp_path / name / "X.ome.zarr") for name in ("P1", "P2")]
    embed_plates(settings_for(plates, model, out))
    assert embed_plates(settings_for(plates, model, out)).was_done
    assert set(json.loads((tmp_path / "e.run.json").read_text())["inputs"]) >= {"P1", "P2"}
    other = make_plate("P1", wells=("A01", "A02"), sites=1)
    with pytest.raises(OutputExistsError):
        embed_plates(settings_for([other, plates[1]], model, out))
    for path in (plates[0].path, plates[0].companion.path):  # type: ignore[attr-defined]
        shutil.rmtree(path)
    for path in (other.path, other.path.with_name("P1.cellvim")):
        path.rename(tmp_path / "P1" / f"X{''.join(path.suffixes)}")
    with pytest.raises(OutputExistsError):
        embed_plates(settings_for(plates, model, out))


def test_a_full_disk_leaves_parts_and_nothing_half_written(
    plates: list[PlateReader], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.parquet", tmp_path / "e.parquet"
    embed_plates(settings_for(plates, model, whole))
    write = pq.ParquetWriter.write_table
    blocks: list[int] = []

    def fill_up(self: pq.ParquetWriter, table: Any, **kwargs: Any) -> None:
        blocks.append(table.num_rows)
        # The first plate's two parts and the second one's thumbnails had room.
        if len(blocks) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, table, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", fill_up)
        with pytest.raises(OSError, match="No space left") as full:
            embed_plates(settings_for(plates, model, out))
    assert full.value.errno == errno.ENOSPC
    assert not out.exists()
    assert names_in(tmp_path / "e.parquet.parts") == {
        "P1.parquet", "P1.thumbnails.parquet", "P2.thumbnails.parquet", "threads.json",
    }  # fmt: skip
    embed_plates(settings_for(plates, model, out))
    assert out.read_bytes() == whole.read_bytes()


def test_what_a_kill_after_the_table_left_is_tidied_by_the_next_run(
    plates: list[PlateReader], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(plates, model, tmp_path / "e.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(run, "_write_anndata", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_plates(settings)
    (tmp_path / "e.parquet.parts" / ".tmp-1-P1.parquet").write_bytes(b"half")
    assert embed_plates(settings).was_done
    assert names_in(tmp_path) == {"e.parquet", "e.run.json", "e.thumbnails.parquet"}


def test_half_a_table_of_a_killed_run_is_swept_away(
    plates: list[PlateReader], model: Path, tmp_path: Path
) -> None:
    (tmp_path / ".tmp-1-e.parquet").write_bytes(b"half")
    (tmp_path / ".tmp-1-other.parquet").write_bytes(b"somebody else's")
    embed_plates(settings_for(plates[:1], model, tmp_path / "e.parquet"))
    assert {name for name in names_in(tmp_path) if name.startswith(".")} == {".tmp-1-other.parquet"}


def test_mistakes_are_found_before_anything_is_written(
    plates: list[PlateReader], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no model weights"):
        embed_plates(settings_for(plates, tmp_path / "nowhere", tmp_path / "e.parquet"))
    with pytest.raises(UsageError, match=r"does not end in \.parquet"):
        embed_plates(settings_for(plates, model, tmp_path / "e.csv"))
    with pytest.raises(UsageError, match=r"layers \[2\] do not exist: the model has blocks 0 to 1"):
        embed_plates(settings_for(plates, model, tmp_path / "e.parquet", layers=(0, 2), each_layer=True))
    with pytest.raises(UsageError, match="--tile-px 7 is less than a patch of the model, 8 px"):
        embed_plates(settings_for(plates, model, tmp_path / "e.parquet", tile_px=7))
    assert names_in(tmp_path) == set()


def test_a_table_says_what_made_it_and_its_record_how_long_the_encoder_waited(
    plates: list[PlateReader], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "e.parquet"
    embed_plates(settings_for(plates, model, out))
    about = read_metadata(out)
    assert (about["cellvim"], about["precision"], about["tile_px"]) == (__version__, "float32", 32)
    assert about["plates"] == {plate.name: plate.fingerprint for plate in plates}
    assert about["cutting"] == {"overlap": 0.0, "min_content": 0.0}
    (kernels,) = about["kernels"]
    assert kernels
    facts = json.loads((tmp_path / "e.run.json").read_text())["facts"]
    assert 0 < facts["waiting_share"] < 1
    assert facts["workers"][0]["device"] == "cpu"


def test_each_block_gets_the_table_that_it_would_get_alone(
    plates: list[PlateReader],
    model: Path,
    tmp_path: Path,
    embedded: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A table of a block that was asked for earlier would be matched by the same pattern, so it is named."""
    for name in ("e.block05.parquet", "other.block05.parquet"):
        (tmp_path / name).write_bytes(b"older")
    settings = settings_for(plates[:2], model, tmp_path / "e.parquet", each_layer=True)
    summary = embed_plates(settings)
    (warned,) = (record.getMessage() for record in caplog.records if "another run" in record.getMessage())
    assert warned.startswith(str(tmp_path / "e.block05.parquet"))
    assert embedded == ["P1", "P2"]
    for block, table in enumerate(summary.tables):
        assert table.name == f"e.block{block:02d}.parquet"
        embed_plates(
            settings_for(plates[:2], model, tmp_path / "alone.parquet", layers=(block,), overwrite=True)
        )
        alone = pl.read_parquet(tmp_path / "alone.parquet")
        assert_frame_equal(pl.read_parquet(table), alone, abs_tol=1e-6)
        assert read_metadata(table)["layers"] == [block]
    assert embed_plates(settings).was_done
    assert len({read_metadata(table)["identity"] for table in summary.tables}) == 2
