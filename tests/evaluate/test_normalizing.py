"""`cellvim normalize`: what it writes, that it may be run again, and that what it kept fits new plates."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cellvim.cli import app
from cellvim.config import EvaluateSettings, NormalizeSettings
from cellvim.errors import InputError, NotFoundError, OutputExistsError, UsageError
from cellvim.evaluate.normalizing import normalize_tables
from cellvim.evaluate.stage import input_files, table_names, warn_of_seen_controls
from cellvim.profiles import Profiles, aggregate, annotate, consensus, normalize, read_profiles

MakeScreen = Callable[..., Profiles]
Write = Callable[[Profiles, Path], Path]

METHODS = ("none", "standardize", "mad", "sphere", "tvn", "pca")


@pytest.fixture
def tables(make_screen: MakeScreen, write_screen: Write, tmp_path: Path) -> Path:
    """A folder with one table per plate."""
    screen = make_screen(plates=3)
    folder = tmp_path / "tables"
    folder.mkdir()
    for plate in screen.plates:
        rows = np.flatnonzero((screen.metadata["Metadata_Plate"] == plate).to_numpy())
        write_screen(screen.only(rows), folder / f"{plate}.parquet")
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_table_holds_what_normalize_gives_and_says_so(tables: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "out.parquet"
    summary = normalize_tables(NormalizeSettings(tables=(tables,), out=out, normalize=method))
    expected = normalize(aggregate(annotate(read_profiles(tables))), method)

    found = read_profiles(out)
    np.testing.assert_array_equal(found.features, expected.features)
    assert found.feature_names == expected.feature_names
    assert found.metadata.equals(expected.metadata)
    assert found.provenance["normalized"]["method"] == method == summary.method
    assert set(found.provenance["inputs"]) == {"P1.parquet", "P2.parquet", "P3.parquet"}
    record = json.loads((tmp_path / "out.run.json").read_text())
    assert record["inputs"] == found.provenance["inputs"]
    assert record["counts"] == {"wells": 48, "rows": 48}
    assert (summary.rows, summary.was_done) == (48, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.parquet", "out.run.json", "tables"]


def test_a_second_run_finds_it_done_and_a_new_one_gives_the_same_bytes(tables: Path, tmp_path: Path) -> None:
    settings = NormalizeSettings(tables=(tables,), out=tmp_path / "a.parquet", save=tmp_path / "a.fit")
    first = normalize_tables(settings)
    before = settings.out.read_bytes(), settings.out.stat().st_mtime_ns
    again = normalize_tables(settings)
    assert again == replace(first, was_done=True)
    assert (settings.out.read_bytes(), settings.out.stat().st_mtime_ns) == before

    other = settings.model_copy(update={"out": tmp_path / "b.parquet", "save": tmp_path / "b.fit"})
    normalize_tables(other)
    assert other.out.read_bytes() == before[0]
    assert (tmp_path / "a.fit").read_bytes() == (tmp_path / "b.fit").read_bytes()


def test_what_is_missing_of_an_output_is_made_again(tables: Path, tmp_path: Path) -> None:
    settings = NormalizeSettings(tables=(tables,), out=tmp_path / "a.parquet", save=tmp_path / "a.fit")
    normalize_tables(settings)
    for name in ("a.fit", "a.run.json"):
        (tmp_path / name).unlink()
        assert not normalize_tables(settings).was_done
        assert (tmp_path / name).is_file()


def test_results_of_other_settings_are_not_written_over_unless_told(tables: Path, tmp_path: Path) -> None:
    settings = NormalizeSettings(tables=(tables,), out=tmp_path / "a.parquet", save=tmp_path / "a.fit")
    normalize_tables(settings)
    other = settings.model_copy(update={"normalize": "mad"})
    with pytest.raises(OutputExistsError, match=r"a.parquet already exists"):
        normalize_tables(other)
    with pytest.raises(OutputExistsError, match=r"a.fit already exists"):
        normalize_tables(other.model_copy(update={"out": tmp_path / "b.parquet"}))
    assert not (tmp_path / "b.parquet").exists()
    normalize_tables(other.model_copy(update={"overwrite": True}))
    assert read_profiles(settings.out).provenance["normalized"]["method"] == "mad"


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_plate_put_through_a_kept_fit_has_the_values_it_had(
    tables: Path, tmp_path: Path, method: str
) -> None:
    fit = tmp_path / "screen.fit"
    normalize_tables(
        NormalizeSettings(tables=(tables,), out=tmp_path / "all.parquet", normalize=method, save=fit)
    )
    out = tmp_path / "P2.parquet"
    normalize_tables(NormalizeSettings(tables=(tables / "P2.parquet",), out=out, fitted=fit))
    whole = read_profiles(tmp_path / "all.parquet")
    rows = (whole.metadata["Metadata_Plate"] == "P2").to_numpy()
    np.testing.assert_array_equal(read_profiles(out).features, whole.features[rows])


def test_tables_of_one_fit_may_be_joined_and_those_of_two_may_not(tables: Path, tmp_path: Path) -> None:
    """P3 put through the fit of P1 and P2 lies in their space; P3 sphered by itself does not."""
    fit, pair = tmp_path / "screen.fit", (tables / "P1.parquet", tables / "P2.parquet")
    folder = tmp_path / "profiles"
    normalize_tables(NormalizeSettings(tables=pair, out=folder / "old.parquet", save=fit))
    new = NormalizeSettings(tables=(tables / "P3.parquet",), out=folder / "new.parquet", fitted=fit)
    normalize_tables(new)
    assert read_profiles(folder).plates == ("P1", "P2", "P3")
    alone = NormalizeSettings(tables=(tables / "P3.parquet",), out=folder / "new.parquet", overwrite=True)
    normalize_tables(alone)
    with pytest.raises(InputError, match="normalized is"):
        read_profiles(folder)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_consensus_is_of_normalised_wells(tables: Path, tmp_path: Path, average: str) -> None:
    out = tmp_path / "c.parquet"
    settings = {"tables": (tables,), "out": out, "normalize": "mad", "average": average}
    normalize_tables(NormalizeSettings(**settings, is_consensus=True))
    wells = normalize(aggregate(annotate(read_profiles(tables)), average), "mad")
    expected = consensus(wells, ["Metadata_Perturbation"], average)
    found = pl.read_parquet(out)
    assert found.select(expected.metadata.columns).equals(expected.metadata)
    np.testing.assert_array_equal(found.select(expected.feature_names).to_numpy(), expected.features)
    assert found.height == 5


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"out": "x.csv"}, UsageError, "does not end in .parquet"),
        ({"out": "tables"}, UsageError, "does not end in .parquet"),
        ({"tables": ("absent.parquet",)}, NotFoundError, "no profile table"),
        ({"fitted": "absent.fit"}, NotFoundError, "absent.fit"),
        ({"platemap": "absent.csv"}, NotFoundError, "absent.csv"),
        ({"fitted": "tables/P1.parquet"}, InputError, "safetensors"),
        ({"normalize": "tvn", "batch": "Month"}, InputError, "no column Month"),
        ({"control": "Moa=none"}, InputError, "no well has"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_left(
    tables: Path, tmp_path: Path, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    def placed(value: object) -> object:
        return tuple(map(placed, value)) if isinstance(value, tuple) else tmp_path / str(value)

    paths = {"out", "tables", "fitted", "platemap"}
    content = {"tables": (tables,), "out": tmp_path / "o.parquet"}
    content |= {key: placed(value) if key in paths else value for key, value in changes.items()}
    with pytest.raises(error, match=words):
        normalize_tables(NormalizeSettings(**content))
    assert [path.name for path in tmp_path.iterdir()] == ["tables"]


def test_a_fit_brings_its_method(tables: Path, tmp_path: Path) -> None:
    fit = tmp_path / "a.fit"
    settings = NormalizeSettings(tables=(tables,), out=tmp_path / "a.parquet", normalize="pca", save=fit)
    normalize_tables(settings)
    other = NormalizeSettings(tables=(tables,), out=tmp_path / "b.parquet", normalize="mad", fitted=fit)
    with pytest.raises(UsageError, match="was fitted by pca"):
        normalize_tables(other)
    for changes in ({"fitted": fit, "save": fit}, {"normalize": "none", "save": fit}):
        with pytest.raises(UsageError, match="fit"):
            NormalizeSettings.checked({"tables": [tables], "out": tmp_path / "b.parquet", **changes})


def test_the_command_takes_its_flags(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    call = ["normalize", str(tables), "--out", str(out), "--normalize", "tvn", "--consensus", "--json"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["method"], said["rows"], said["was_done"]) == ("tvn", 5, False)
    assert "cellvim" in {key.decode() for key in pq.read_schema(out).metadata}


def test_normalising_twice_is_said(tables: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    normalize_tables(NormalizeSettings(tables=(tables,), out=first, normalize="mad"))
    summary = normalize_tables(NormalizeSettings(tables=(first,), out=second))
    assert "normalised before (mad)" in summary.warnings[0]


# What evaluate makes of such tables


def test_controls_that_a_fit_has_seen_are_warned_of(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    normalize_tables(NormalizeSettings(tables=(tables,), out=out, normalize="mad"))
    settings = EvaluateSettings(tables=(out,), out=tmp_path / "report")
    assert "activity is too optimistic" in warn_of_seen_controls(read_profiles(out), settings).warnings[-1]
    others = settings.model_copy(update={"tasks": ("probe",)})
    assert not warn_of_seen_controls(read_profiles(out), others).warnings
    assert not warn_of_seen_controls(read_profiles(tables), settings).warnings


def test_each_file_of_a_folder_is_an_input_of_an_evaluation(tables: Path, tmp_path: Path) -> None:
    pl.DataFrame({"x": [1]}).write_parquet(tables / "P2.thumbnails.parquet")
    settings = EvaluateSettings(tables=(tables,), out=tmp_path / "report")
    names = table_names(settings.tables)
    assert list(names) == ["tables"]
    assert list(input_files(settings, names)) == [
        "tables/P1.parquet",
        "tables/P2.parquet",
        "tables/P3.parquet",
        "thumbnails/P2.thumbnails.parquet",
    ]


def test_a_consensus_is_refused_where_wells_are_needed(tables: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.parquet"
    normalize_tables(NormalizeSettings(tables=(tables,), out=out, is_consensus=True))
    with pytest.raises(InputError, match="one row per perturbation") as caught:
        read_profiles(out)
    assert "the table it was made from" in caught.value.hint
