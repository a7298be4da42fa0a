"""Linear probes: they find what is there, find nothing in shuffled labels, and name what they cannot do."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.probe import FOLDS, LEAKY, folds_of, labelled_wells
from cellvim.evaluate.probe import run_probes as probe_screen
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.folds import fold_of
from cellvim.profiles import Profiles

MakeScreen = Callable[..., Profiles]
SETTINGS = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=200)


def probed(profiles: Profiles, settings: EvaluateSettings = SETTINGS) -> TaskResult:
    return probe_screen(Screen(profiles, profiles, settings))


def run_probes(profiles: Profiles, settings: EvaluateSettings) -> dict[str, Any]:
    return probed(profiles, settings).metrics


def value(metric: float | dict[str, float]) -> float:
    return metric["value"] if isinstance(metric, dict) else metric


def test_strong_perturbations_are_read_off_an_unseen_plate(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(9.0, 9.0, 9.0, 9.0), plates=3, replicates=4)
    metrics = run_probes(screen, SETTINGS)
    split = metrics["plate_held_out"]

    assert value(split["accuracy"]) > 0.9
    assert value(split["macro_f1"]) > 0.9
    assert split["accuracy"]["low"] <= value(split["accuracy"]) <= split["accuracy"]["high"]
    assert split["folds"] == split["units"] == 3
    assert metrics["labels"] == 4
    assert metrics["wells"] == 48


def test_shuffled_labels_are_at_chance(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(9.0,) * 5, plates=4, replicates=6)
    metrics = run_probes(screen, SETTINGS)
    for split in ("plate_held_out", LEAKY):
        assert abs(value(metrics[split]["shuffled"]["accuracy"]) - metrics[split]["chance"]) < 0.15


def test_a_mechanism_shared_by_unlike_perturbations_is_not_read_off_new_ones(make_screen: MakeScreen) -> None:
    """Each perturbation has a direction of its own: only a leaky split seems to know the mechanism."""
    screen = make_screen(strengths=(9.0,) * 12, plates=2, replicates=3)
    metrics = run_probes(screen, SETTINGS.model_copy(update={"label": "Moa"}))
    assert value(metrics[LEAKY]["accuracy"]) > 0.9
    assert value(metrics["perturbation_held_out"]["accuracy"]) < 0.75
    assert metrics["perturbation_held_out"]["units"] == 12


def test_doses_of_a_compound_are_held_out_together(make_screen: MakeScreen) -> None:
    """Eight perturbations are two doses each of four compounds, of two mechanisms."""
    screen = make_screen(strengths=(9.0,) * 8, plates=2, replicates=3)
    names = sorted(screen.metadata.filter(~pl.Series(screen.is_control))["Metadata_Perturbation"].unique())
    compound = {name: f"compound {number // 2}" for number, name in enumerate(names)}
    mechanism = {name: f"mechanism {number // 2 % 2}" for number, name in enumerate(names)}
    perturbation = pl.col("Metadata_Perturbation")
    labelled = screen.metadata.with_columns(
        perturbation.replace_strict(compound, default=None).alias("Metadata_Compound"),
        perturbation.replace_strict(mechanism, default=None).alias("Metadata_Moa"),
    )
    settings = SETTINGS.model_copy(update={"label": "Moa"})
    by_compound = run_probes(replace(screen, metadata=labelled), settings)["perturbation_held_out"]
    by_dose = run_probes(replace(screen, metadata=labelled.drop("Metadata_Compound")), settings)
    assert by_compound["units"] == 4
    assert by_dose["perturbation_held_out"]["units"] == 8
    by_itself = run_probes(
        replace(screen, metadata=labelled), SETTINGS.model_copy(update={"label": "Compound"})
    )
    assert "pass --label" in by_itself["perturbation_held_out"]["reason"]


def test_a_compound_is_held_out_whole_though_one_plate_does_not_name_it(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(9.0,) * 8, plates=2, replicates=3)
    perturbation = pl.col("Metadata_Perturbation")
    number = perturbation.str.extract(r"(\d+)").cast(pl.Int64)
    labelled = screen.metadata.with_columns(
        pl.when(pl.col("Metadata_Plate") == "P1").then(number // 2).alias("Metadata_Compound"),
        (number // 2 % 2).alias("Metadata_Moa"),
    )
    wells = labelled_wells(replace(screen, metadata=labelled), "Metadata_Moa")
    assert set(wells.perturbation) == {"0", "1", "2", "3"}


def test_what_cannot_be_done_says_why(make_screen: MakeScreen) -> None:
    metrics = run_probes(make_screen(plates=1), SETTINGS)
    assert "one plate" in metrics["plate_held_out"]["reason"]
    assert "pass --label" in metrics["perturbation_held_out"]["reason"]
    assert "accuracy" in metrics[LEAKY]

    alone = run_probes(make_screen(strengths=(1.0,), plates=1), SETTINGS)
    assert "fewer than two labels" in alone[LEAKY]["reason"]


def test_plates_that_a_hash_puts_into_one_fold_are_a_reason_not_a_crash(make_screen: MakeScreen) -> None:
    found = run_probes(renamed(make_screen(plates=6, strengths=(9.0, 9.0)), plates_of_one_fold(6)), SETTINGS)
    assert "more than one fold" in found["plate_held_out"]["reason"]
    assert found["plate_held_out"]["unlearnable_wells"] == found["wells"]
    assert "accuracy" in found[LEAKY]


def test_a_label_that_is_on_one_plate_only_is_not_held_against_the_probe(make_screen: MakeScreen) -> None:
    """Two strong perturbations on both plates; two more on one plate each, which nobody could learn."""
    screen = make_screen(strengths=(9.0,) * 4, plates=2, replicates=6)
    plate, name = pl.col("Metadata_Plate"), pl.col("Metadata_Perturbation")
    is_gone = ((plate == "P1") & (name == "drug 2")) | ((plate == "P2") & (name == "drug 3"))
    kept = ~screen.metadata.select(is_gone).to_series().to_numpy()
    thinned = replace(screen, metadata=screen.metadata.filter(kept), features=screen.features[kept])
    split = run_probes(thinned, SETTINGS)["plate_held_out"]
    assert split["unlearnable_wells"] == 12
    assert value(split["accuracy"]) == 1

    is_apart = ((plate == "P1") & (name == "drug 0")) | ((plate == "P2") & (name == "drug 1"))
    kept &= ~screen.metadata.select(is_apart).to_series().to_numpy()
    apart = replace(screen, metadata=screen.metadata.filter(kept), features=screen.features[kept])
    split = run_probes(apart, SETTINGS)["plate_held_out"]
    assert split == {
        "reason": "fewer than two labels are found on two plates or more",
        "unlearnable_wells": 24,
    }


def test_a_mechanism_whose_perturbations_share_a_fold_is_not_held_against_the_probe(
    make_screen: MakeScreen,
) -> None:
    """Of eight compounds in three mechanisms, both of one mechanism are held out together."""
    together = names_of_fold(0, 2, salt="perturbation_held_out")
    others = [name for fold in (1, 2, 3) for name in names_of_fold(fold, 2, salt="perturbation_held_out")]
    screen = make_screen(strengths=(9.0,) * 8, plates=1, replicates=3)
    new = dict(zip([f"drug {number}" for number in range(8)], [*together, *others], strict=True))
    mechanism = dict.fromkeys(together, "lost") | {
        name: f"moa {number % 2}" for number, name in enumerate(others)
    }
    metadata = screen.metadata.with_columns(pl.col("Metadata_Perturbation").replace(new))
    metadata = metadata.with_columns(
        pl.col("Metadata_Perturbation").replace_strict(mechanism, default=None).alias("Metadata_Moa")
    )
    metrics = run_probes(replace(screen, metadata=metadata), SETTINGS.model_copy(update={"label": "Moa"}))
    split = metrics["perturbation_held_out"]
    assert split["unlearnable_wells"] == 6
    assert split["units"] == 6
    assert split["chance"] == 0.5


def renamed(screen: Profiles, plates: list[str]) -> Profiles:
    new = dict(zip(screen.plates, plates, strict=True))
    return replace(screen, metadata=screen.metadata.with_columns(pl.col("Metadata_Plate").replace(new)))


def plates_of_one_fold(count: int) -> list[str]:
    return names_of_fold(0, count, salt="plate_held_out")


def names_of_fold(fold: int, count: int, *, salt: str) -> list[str]:
    names = (f"name {number}" for number in range(1000))
    return list(islice((name for name in names if fold_of(name, folds=FOLDS, salt=salt) == fold), count))


def test_two_runs_are_the_same(make_screen: MakeScreen) -> None:
    assert run_probes(make_screen(), SETTINGS) == run_probes(make_screen(), SETTINGS)


def test_folds_keep_units_whole_and_do_not_move_when_units_are_added() -> None:
    units = np.array([f"well {number}" for number in range(40)])
    fold = folds_of(np.repeat(units, 2), salt="x")
    assert (fold[::2] == fold[1::2]).all()
    assert np.unique(fold).size == 5
    np.testing.assert_array_equal(folds_of(units[:20], salt="x"), fold[::2][:20])


def test_more_labels_than_a_fit_can_hold_are_a_reason(
    make_screen: MakeScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = make_screen()
    assert "accuracy" in run_probes(screen, SETTINGS)[LEAKY]
    monkeypatch.setattr("cellvim.evaluate.probe.MOST_SCORES", 4 * 16 - 1)
    found = run_probes(screen, SETTINGS)
    assert all("4 labels of 16 wells" in found[split]["reason"] for split in ("plate_held_out", LEAKY))
