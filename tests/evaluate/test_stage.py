"""The stage end to end: truth recovered, the same bytes twice, and one clear line where it cannot go on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.atomic import locked
from cellvim.config import EvaluateSettings
from cellvim.errors import InputError, LockedError, NotFoundError, OutputExistsError
from cellvim.evaluate import evaluate_tables
from cellvim.evaluate.outputs import own_files
from cellvim.evaluate.stage import evaluate_table
from cellvim.profiles import Profiles
from cellvim.provenance import sha256_of_file

MakeScreen = Callable[..., Profiles]
WriteScreen = Callable[[Profiles, Path], Path]
QUICK = {"null_size": 500, "bootstraps": 50}
RETRIEVAL = ("activity", "distinctiveness", "replicate_retrieval")


@pytest.fixture(scope="module")
def screen(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Three plates, three active perturbations and one inert one."""
    profiles = make_screen(plates=3, replicates=2)
    return write_screen(profiles, tmp_path_factory.mktemp("screen") / "screen.parquet")


@pytest.fixture(scope="module")
def finished(screen: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluateSettings:
    out = tmp_path_factory.mktemp("finished") / "report"
    settings = EvaluateSettings(tables=(screen,), out=out, label="Moa", **QUICK)
    evaluate_tables(settings)
    return settings


def by_name(table: pl.DataFrame, column: str) -> dict[str, float]:
    return dict(table.select("Metadata_Perturbation", column).rows())


def test_every_promised_file_is_there(finished: EvaluateSettings) -> None:
    names = {path.name for path in finished.out.iterdir()}
    kinds = dict.fromkeys(RETRIEVAL, ("", "_wells")) | {
        "consistency": ("", "_perturbations"),
        "nsc": ("",),
        "nscb": ("",),
        "percent_replicating": ("", "_histogram"),
        "probe": ("_wells", "_confusion"),
        "batch": ("",),
    }
    tables = {f"{task}{kind}.parquet" for task, own in kinds.items() for kind in own}
    assert names == {"report.html", "metrics.json", "run.json"} | tables


def test_active_perturbations_are_told_from_the_inert_one(finished: EvaluateSettings) -> None:
    table = pl.read_parquet(finished.out / "activity.parquet")
    strength, p = by_name(table, "map"), by_name(table, "p")
    assert min(strength[f"drug {number}"] for number in range(3)) > strength["drug 3"]
    assert p["drug 3"] > 0.05
    assert max(p[f"drug {number}"] for number in range(3)) < 0.05


def test_metrics_have_the_promised_form(finished: EvaluateSettings) -> None:
    metrics = json.loads((finished.out / "metrics.json").read_text())
    assert metrics["tasks"] == metrics["tables"][0]["tasks"]
    for task in RETRIEVAL:
        found = metrics["tasks"][task]
        assert set(found["mean_map"]) == {"value", "low", "high"}
        assert found["mean_map"]["low"] <= found["mean_map"]["value"] <= found["mean_map"]["high"]
        assert 0 <= found["fraction_significant"]["value"] <= 1
        rows = pl.read_parquet(finished.out / f"{task}.parquet")
        assert found["mean_map"]["value"] == pytest.approx(rows["map"].to_numpy().mean())
    assert "accuracy" in metrics["tasks"]["probe"]["plate_held_out"]


def test_means_over_wells_are_those_of_perturbations(finished: EvaluateSettings) -> None:
    for task in RETRIEVAL:
        wells = pl.read_parquet(finished.out / f"{task}_wells.parquet")
        means = wells.group_by("Metadata_Perturbation").agg(pl.col("ap").mean().alias("map"))
        expected = by_name(pl.read_parquet(finished.out / f"{task}.parquet"), "map")
        assert by_name(means, "map") == pytest.approx(expected)


def test_a_second_run_gives_the_same_bytes_in_any_folder(finished: EvaluateSettings, tmp_path: Path) -> None:
    copied = tmp_path / "elsewhere" / "screen.parquet"
    copied.parent.mkdir()
    copied.write_bytes(finished.tables[0].read_bytes())
    again = finished.model_copy(update={"tables": (copied,), "out": tmp_path / "again"})
    evaluate_tables(again)
    evaluate_tables(again)
    for path in finished.out.iterdir():
        if path.name != "run.json":
            assert (again.out / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_order_of_rows_changes_no_metric_and_no_table(finished: EvaluateSettings, tmp_path: Path) -> None:
    table = pl.read_parquet(finished.tables[0])
    copied = tmp_path / "screen.parquet"
    table[np.random.default_rng(0).permutation(table.height)].write_parquet(copied)
    again = finished.model_copy(update={"tables": (copied,), "out": tmp_path / "again"})
    evaluate_tables(again)
    for path in finished.out.iterdir():
        if path.name not in ("run.json", "report.html", "metrics.json"):  # these hold the hash of the table
            assert (again.out / path.name).read_bytes() == path.read_bytes(), path.name
    found, expected = (json.loads((each.out / "metrics.json").read_text()) for each in (again, finished))
    assert found.pop("provenance") != expected.pop("provenance")
    assert found == expected


def test_results_of_other_settings_are_not_written_over(finished: EvaluateSettings) -> None:
    before = {path.name: path.read_bytes() for path in finished.out.iterdir()}
    with pytest.raises(OutputExistsError, match=r"holds run\.json of other inputs"):
        evaluate_tables(finished.model_copy(update={"seed": 1}))
    assert {path.name: path.read_bytes() for path in finished.out.iterdir()} == before


def test_foreign_files_are_not_written_over_unless_told(screen: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    settings = EvaluateSettings(tables=(screen,), out=tmp_path, tasks=("activity",), **QUICK)
    with pytest.raises(OutputExistsError, match=r"report\.html"):
        evaluate_tables(settings)
    evaluate_tables(settings.model_copy(update={"overwrite": True}))
    assert (tmp_path / "report.html").read_text() != "mine"


def test_shuffled_labels_are_not_significant(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path
) -> None:
    """The truth is gone once names are dealt anew, controls included."""
    profiles = make_screen(strengths=(4.0,) * 12, plates=2, replicates=3, controls=12)
    order = np.random.default_rng(0).permutation(profiles.metadata.height)
    names = ["Metadata_Perturbation", "Metadata_ControlType"]
    shuffled = profiles.metadata.with_columns(profiles.metadata[order].select(names))
    path = write_screen(replace(profiles, metadata=shuffled), tmp_path / "shuffled.parquet")
    for method in ("sphere", "standardize", "mad", "none"):
        settings = EvaluateSettings(
            tables=(path,), out=tmp_path, normalize=method, tasks=RETRIEVAL, null_size=2000, bootstraps=10
        )
        for result in evaluate_table("shuffled", path, settings).results.values():
            assert result.metrics["fraction_significant"]["value"] <= 0.05


@pytest.mark.parametrize("method", ["sphere", "standardize", "mad", "none"])
def test_a_collapsed_table_is_at_the_bottom(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path, method: str
) -> None:
    profiles = make_screen()
    flat = replace(profiles, features=np.full_like(profiles.features, 0.3))
    path = write_screen(flat, tmp_path / "flat.parquet")
    settings = EvaluateSettings(tables=(path,), out=tmp_path, normalize=method, tasks=RETRIEVAL, **QUICK)
    for result in evaluate_table("flat", path, settings).results.values():
        assert result.metrics["fraction_significant"]["value"] == 0
        assert (result.rows["normalized_map"] < 0).all()


def test_several_tables_stand_side_by_side(
    make_screen: MakeScreen, write_screen: WriteScreen, screen: Path, tmp_path: Path
) -> None:
    (tmp_path / "noise").mkdir()
    noise = write_screen(make_screen(strengths=(0.0,) * 4, plates=3), tmp_path / "noise" / "screen.parquet")
    settings = EvaluateSettings(tables=(screen, noise), out=tmp_path / "out", tasks=("activity",), **QUICK)
    summary = evaluate_tables(settings)

    names = [table["name"] for table in summary.metrics["tables"]]
    assert names[1] == "noise/screen"
    found = [table["tasks"]["activity"]["mean_map"]["value"] for table in summary.metrics["tables"]]
    assert found[0] > found[1]
    assert pl.read_parquet(tmp_path / "out" / "activity.parquet")[
        "table"
    ].unique().sort().to_list() == sorted(names)
    assert all(name in str(summary) for name in names)
    assert json.dumps(summary.as_dict())


def test_a_table_without_controls_is_refused_and_told_the_way_out(
    make_screen: MakeScreen, write_screen: WriteScreen, tmp_path: Path
) -> None:
    profiles = make_screen()
    bare = replace(profiles, metadata=profiles.metadata.drop("Metadata_ControlType"))
    path = write_screen(bare, tmp_path / "bare.csv")
    settings = EvaluateSettings(tables=(path,), out=tmp_path / "out", **QUICK)
    with pytest.raises(InputError, match="no negative controls") as caught:
        evaluate_tables(settings)
    assert "--normalize none" in caught.value.hint
    assert not (tmp_path / "out").exists()

    # The way out works: what needs no controls is judged, and the rest says what it lacks.
    tasks = evaluate_tables(settings.model_copy(update={"normalize": "none"})).metrics["tasks"]
    for task in ("activity", "dose"):
        assert "reason" in tasks[task]
    assert "--control" in tasks["activity"]["reason"]
    assert "mean_map" in tasks["distinctiveness"]
    assert (tmp_path / "out" / "report.html").is_file()


def test_other_people_s_files_are_never_removed(screen: Path, tmp_path: Path) -> None:
    """`batch_1.parquet` sounds like a table of the task `batch`; `probe.parquet` is one, unless it is read."""
    other = tmp_path / "batch_1.parquet"
    other.write_bytes(screen.read_bytes())
    settings = EvaluateSettings(tables=(other,), out=tmp_path, tasks=("activity",), overwrite=True, **QUICK)
    evaluate_tables(settings)
    assert other.read_bytes() == screen.read_bytes()
    clash = tmp_path / "other" / "probe.parquet"
    clash.parent.mkdir()
    clash.write_bytes(screen.read_bytes())
    with pytest.raises(OutputExistsError, match=r"holds probe\.parquet, which is read here"):
        evaluate_tables(settings.model_copy(update={"tables": (clash,), "out": clash.parent}))
    assert clash.is_file()


def test_every_table_of_a_task_is_known_as_ours(finished: EvaluateSettings) -> None:
    assert {path.name for path in own_files(finished.out)} == {path.name for path in finished.out.iterdir()}


def test_pictures_among_the_tables_of_a_shell_s_pattern_are_passed_over(screen: Path, tmp_path: Path) -> None:
    for block in ("b.block01", "b.block02"):
        (tmp_path / f"{block}.parquet").write_bytes(screen.read_bytes())
        pictures = (
            pl.read_parquet(screen).select("Metadata_Plate", "Metadata_Well").with_columns(png=pl.lit(b"png"))
        )
        pictures.write_parquet(tmp_path / f"{block}.thumbnails.parquet")
    tables = tuple(sorted(tmp_path.glob("b.block*.parquet")))
    assert len(tables) == 4
    settings = EvaluateSettings(tables=tables, out=tmp_path / "out", tasks=("activity",), **QUICK)
    names = [table["name"] for table in evaluate_tables(settings).metrics["tables"]]
    assert names == ["b.block01", "b.block02"]
    with pytest.raises(InputError, match="holds pictures of wells"):
        evaluate_tables(settings.model_copy(update={"tables": tables[1:2]}))


@pytest.fixture
def pictured(screen: Path, tmp_path: Path) -> EvaluateSettings:
    """A table with pictures beside it, evaluated."""
    table = tmp_path / "pictured.parquet"
    table.write_bytes(screen.read_bytes())
    wells = pl.read_parquet(table).select("Metadata_Plate", "Metadata_Well")
    wells.with_columns(png=pl.lit(b"png")).write_parquet(tmp_path / "pictured.thumbnails.parquet")
    settings = EvaluateSettings(tables=(table,), out=tmp_path / "out", tasks=("activity",), **QUICK)
    evaluate_tables(settings)
    return settings


def test_pictures_are_an_input(pictured: EvaluateSettings) -> None:
    pictures = pictured.tables[0].with_name("pictured.thumbnails.parquet")
    recorded = json.loads((pictured.out / "run.json").read_text())["inputs"]
    assert recorded["thumbnails"] == sha256_of_file(pictures)

    pl.read_parquet(pictures).with_columns(png=pl.lit(b"other")).write_parquet(pictures)
    with pytest.raises(OutputExistsError):
        evaluate_tables(pictured)


def test_a_page_that_cannot_be_made_leaves_the_results_there_are(pictured: EvaluateSettings) -> None:
    before = {path.name: path.read_bytes() for path in pictured.out.iterdir()}
    again = pictured.model_copy(update={"overwrite": True})
    pictures = pictured.tables[0].with_name("pictured.thumbnails.parquet")
    pl.DataFrame({"Metadata_Plate": ["P1"]}).write_parquet(pictures)
    with pytest.raises(InputError, match=r"pictured\.thumbnails\.parquet cannot be read"):
        evaluate_tables(again)
    pictures.write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"pictured\.thumbnails\.parquet cannot be read"):
        evaluate_tables(again)
    assert {path.name: path.read_bytes() for path in pictured.out.iterdir()} == before


@pytest.mark.parametrize("was_there", [True, False])
def test_a_failed_run_takes_away_only_the_folder_it_made(tmp_path: Path, *, was_there: bool) -> None:
    out = tmp_path / "out"
    if was_there:
        out.mkdir()
    with pytest.raises(NotFoundError):
        evaluate_tables(EvaluateSettings(tables=(tmp_path / "absent.csv",), out=out, **QUICK))
    assert out.exists() == was_there


def test_absent_inputs_doubled_tables_and_busy_folders_are_refused(screen: Path, tmp_path: Path) -> None:
    settings = EvaluateSettings(tables=(screen,), out=tmp_path / "out", **QUICK)
    for wrong in ({"tables": (tmp_path / "absent.csv",)}, {"platemap": tmp_path / "absent.csv"}):
        with pytest.raises(NotFoundError):
            evaluate_tables(settings.model_copy(update=wrong))
    with pytest.raises(InputError, match="given twice"):
        evaluate_tables(settings.model_copy(update={"tables": (screen, screen)}))
    with locked(tmp_path / "out"), pytest.raises(LockedError):
        evaluate_tables(settings)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExistsError, match="is not a folder"):
        evaluate_tables(settings.model_copy(update={"out": tmp_path / "file"}))
