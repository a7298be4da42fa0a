"""What probes predicted, well by well: counts as scikit-learn has them, and intervals as a loop resamples them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cellvim.config import EvaluateSettings
from cellvim.evaluate.classifier import FEWEST_ITERATIONS, MOST_ITERATIONS, fit_and_predict, most_iterations
from cellvim.evaluate.confusion import confusion_table
from cellvim.evaluate.probe import LEAKY, run_probes
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles
from cellvim.statistics import resampled_counts

MakeScreen = Callable[..., Profiles]
SETTINGS = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=100)


def probed(profiles: Profiles, **changes: object) -> TaskResult:
    return run_probes(Screen(profiles, profiles, SETTINGS.model_copy(update=changes)))


@pytest.fixture(scope="module")
def found(make_screen: MakeScreen) -> TaskResult:
    return probed(make_screen(strengths=(1.0,) * 5, plates=3, replicates=4))


@pytest.mark.parametrize("split", ["plate_held_out", LEAKY])
def test_tables_and_metrics_tell_the_same_story(found: TaskResult, split: str) -> None:
    wells = found.tables["wells"].filter(split=split)
    confusion = found.tables["confusion"].filter(split=split)
    labels = sorted(wells["label"].unique())
    expected = confusion_matrix(wells["label"], wells["predicted"], labels=labels)
    for row in confusion.iter_rows(named=True):
        count = expected[labels.index(row["label"]), labels.index(row["predicted"])]
        assert row["count"] == count
        assert row["share"] == pytest.approx(count / expected[labels.index(row["label"])].sum())
        assert 0 <= row["low"] <= row["share"] <= row["high"] <= 1
    assert confusion["count"].sum() == wells.height == expected.sum()
    accuracy = found.metrics[split]["accuracy"]["value"]
    assert accuracy == pytest.approx(accuracy_score(wells["label"], wells["predicted"]))
    assert wells["unit"].n_unique() == found.metrics[split]["units"]
    assert not wells.select("Metadata_Plate", "Metadata_Well").is_duplicated().any()


def test_intervals_are_those_of_a_loop_over_resamples() -> None:
    rng = np.random.default_rng(0)
    label, predicted, unit = rng.integers(0, 3, 60), rng.integers(0, 3, 60), rng.integers(0, 8, 60)
    table = confusion_table(label, predicted, unit, resamples=50, seed=1, name="x")
    drawn = resampled_counts(8, resamples=50, seed=1, name="x")
    for row in table.iter_rows(named=True):
        shares = []
        for counts in drawn:
            weight = counts[unit]
            below = weight[label == row["label"]].sum()
            is_hit = (label == row["label"]) & (predicted == row["predicted"])
            shares.append(weight[is_hit].sum() / below)
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(shares, [0.025, 0.975])))


def test_a_label_that_some_resamples_lack_and_a_single_unit_are_no_error() -> None:
    label, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    rare = confusion_table(label, predicted, np.array([0, 1, 2, 2]), resamples=40, seed=0, name="x")
    assert rare.filter(label=1)["low"].to_list() == [1.0]
    single = confusion_table(label, predicted, np.zeros(4, int), resamples=40, seed=0, name="x")
    assert single["low"].null_count() == single["high"].null_count() == single.height == 3


def test_a_well_with_several_labels_is_left_out_and_counted(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(9.0,) * 6, plates=2, replicates=3)
    both = (
        pl.when(pl.col("Metadata_Perturbation") == "drug 0")
        .then(pl.lit("moa 0| moa 1"))
        .otherwise("Metadata_Moa")
    )
    several = replace(screen, metadata=screen.metadata.with_columns(both.alias("Metadata_Moa")))
    result = probed(several, label="Moa")
    assert result.metrics["wells_with_several_labels"] == 6
    assert result.metrics["wells"] == 30
    assert set(result.tables["wells"]["label"]) == {"moa 0", "moa 1"}
    other = probed(several, label="Moa", label_separator=";")
    assert other.metrics["wells_with_several_labels"] == 0
    assert other.metrics["labels"] == 3


def test_names_of_perturbations_are_not_cut_at_a_separator(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(9.0,) * 3, plates=2, replicates=3)
    cut = screen.metadata.with_columns(pl.col("Metadata_Perturbation").str.replace(" ", "|"))
    result = probed(replace(screen, metadata=cut))
    assert result.metrics["labels"] == 3
    assert result.metrics["wells_with_several_labels"] == 0


def test_without_a_split_there_is_no_table(make_screen: MakeScreen) -> None:
    result = probed(make_screen(strengths=(1.0,), plates=1))
    assert all("reason" in result.metrics[split] for split in ("plate_held_out", LEAKY))
    assert not result.tables


def test_two_runs_are_the_same(make_screen: MakeScreen, found: TaskResult) -> None:
    again = probed(make_screen(strengths=(1.0,) * 5, plates=3, replicates=4))
    assert again.metrics == found.metrics
    assert all(again.tables[kind].equals(table) for kind, table in found.tables.items())


def test_the_classifier_is_that_of_scikit_learn_in_float64() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(6), 60)
    features = rng.normal(size=(6, 30))[label] * 0.6 + rng.normal(size=(360, 30))
    is_train = rng.random(360) < 0.7
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    expected = model.fit(features[is_train], label[is_train]).predict(features[~is_train])
    predicted, is_converged = fit_and_predict(features[is_train], label[is_train], features[~is_train])
    assert is_converged
    assert (predicted == expected).mean() > 0.98


def test_a_fit_may_take_fewer_iterations_where_each_costs_more() -> None:
    assert most_iterations(100, 50, labels=4) == MOST_ITERATIONS
    assert FEWEST_ITERATIONS < most_iterations(3000, 384, labels=352) < MOST_ITERATIONS
    assert most_iterations(30000, 384, labels=352) == FEWEST_ITERATIONS
