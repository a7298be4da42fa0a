"""Dose response: what is planted is found, noise is not, and every number has a second definition."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from cellvim.config import EvaluateSettings
from cellvim.evaluate.dose import dose
from cellvim.evaluate.dose.axis import is_positive, places_on_axis
from cellvim.evaluate.dose.curve import fit_curve
from cellvim.evaluate.dose.series import dosed_wells
from cellvim.evaluate.dose.trend import trend_along_axis, trend_to_highest_dose
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval_tasks import judging_spaces
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, aggregate, normalize

DOSES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SETTINGS = EvaluateSettings(tables=(Path("t"),), out=Path("o"), bootstraps=100, null_size=2000)


def screen_of(  # noqa: PLR0913 - every knob of a made-up screen
    *,
    effects: tuple[float, ...] = (6.0, 0.0),
    doses: tuple[float, ...] = DOSES,
    plates: int = 2,
    replicates: int = 2,
    negatives: int = 8,
    positives: int = 4,
    features: int = 30,
    seed: int = 0,
    **settings: Any,
) -> Screen:
    """Compounds move along one direction, half of their effect at dose 1; positive controls move by 6."""
    rng = np.random.default_rng(seed)
    direction = np.eye(features)[0]
    rows, values = [], []
    for plate in range(plates):
        wells = [("DMSO", None, "negcon", 0.0)] * negatives + [("best", None, "poscon", 6.0)] * positives
        wells += [
            (f"drug {number}", level, None, effect * level / (1 + level))
            for number, effect in enumerate(effects)
            for level in doses
            for _ in range(replicates)
        ]
        for place, (name, level, control, effect) in enumerate(wells):
            rows.append(
                (f"P{plate}", f"{'ABCDEFGHIJKLMNOP'[place // 24]}{place % 24 + 1:02}", name, level, control)
            )
            values.append(3 * plate + effect * direction + rng.normal(size=features))
    columns = dict.fromkeys(("Plate", "Well", "Perturbation"), pl.String)
    columns |= {"Dose": pl.Float64, "ControlType": pl.String}
    metadata = pl.DataFrame(rows, {f"Metadata_{name}": kind for name, kind in columns.items()}, orient="row")
    names = tuple(f"emb_{index:04}" for index in range(features))
    raw = Profiles(metadata, np.array(values, np.float32), names, {}, Path("doses.parquet"), "doses")
    given = SETTINGS.model_copy(update={"normalize": "standardize"} | settings)
    return Screen(raw, normalize(raw, given.normalize), given)


def with_metadata(screen: Screen, *columns: pl.Expr | pl.Series, drop: tuple[str, ...] = ()) -> Screen:
    def changed(profiles: Profiles) -> Profiles:
        return replace(profiles, metadata=profiles.metadata.with_columns(*columns).drop(*drop))

    return Screen(changed(screen.raw), changed(screen.normalized), screen.settings)


def row(result: TaskResult, compound: str) -> dict[str, Any]:
    return result.rows.row(by_predicate=pl.col("compound") == compound, named=True)


@pytest.mark.parametrize("positives", [4, 0])
@pytest.mark.parametrize("method", ["standardize", "sphere", "none"])
def test_a_planted_response_is_found_and_an_inert_compound_is_not(positives: int, method: str) -> None:
    found = dose(screen_of(effects=(12.0, 0.0), positives=positives, normalize=method))
    assert found.metrics["axis"] == ("positive control" if positives else "highest dose")
    active, inert = row(found, "drug 0"), row(found, "drug 1")
    assert active["trend"] > 0.8
    assert active["q"] < 0.05
    assert active["doses"] == len(DOSES)
    assert active["wells"] == active["judged"] == 2 * 2 * len(DOSES)
    assert method == "sphere" or 0.1 < active["ec50"] < 10
    assert inert["q"] > 0.05
    assert inert["ec50"] is None
    assert [each["compound"] for each in found.metrics["leading"]] == ["drug 0"]


def test_places_are_the_textbook_projection() -> None:
    """A loop over wells, with the means taken anew for each; without normalisation nothing else is fitted."""
    screen = screen_of(normalize="none", plates=2)
    features, plate = screen.raw.features.astype(float), screen.wells.plate
    negative, positive = screen.raw.is_control, is_positive(screen)
    places = places_on_axis(screen)
    for well in np.flatnonzero(~negative):
        own = plate == plate[well]
        origin = features[own & negative].mean(axis=0)
        length = np.sum((features[own & positive].mean(axis=0) - origin) ** 2)
        others = own & positive & (np.arange(own.size) != well)
        # Positive controls share the folds of the negative ones: their origin is a part of these.
        if positive[well]:
            continue
        axis = features[others].mean(axis=0) - origin
        assert places[well] == pytest.approx((features[well] - origin) @ axis / length, abs=1e-5)
    assert places[negative].mean() == pytest.approx(0, abs=0.1)
    assert places[positive].mean() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("method", ["standardize", "mad", "sphere", "tvn", "pca", "none"])
def test_white_noise_does_not_part_the_controls(method: str) -> None:
    """200 features of noise tell 8 from 6 wells perfectly; places of controls must not know it."""
    differences, factors, errors = [], [], []
    for seed in range(4):
        screen = screen_of(effects=(0.0,), positives=6, features=200, seed=seed, plates=3, normalize=method)
        direction = is_positive(screen)
        raw = screen.raw.features.copy()
        raw[direction, 0] -= 6
        noise = replace(screen.raw, features=raw)
        screen = Screen(noise, normalize(noise, method), screen.settings)
        places = places_on_axis(screen)
        negative = places[screen.wells.is_control]
        differences.append(places[direction].mean() - negative.mean())
        errors.append(np.hypot(places[direction].std() / 18**0.5, negative.std() / 24**0.5))
        factors.append(dose(screen).metrics["mean_z_prime"]["value"])
    assert abs(np.mean(differences)) < 3 * np.mean(errors) / 4**0.5
    assert max(factors) < 0


def test_an_axis_that_has_seen_its_wells_parts_white_noise() -> None:
    """Why wells are left out: the same noise, placed on axes that they helped to make."""
    rng = np.random.default_rng(0)
    negative, positive = rng.normal(size=(8, 200)), rng.normal(size=(6, 200))
    axis = positive.mean(axis=0) - negative.mean(axis=0)
    places = [(wells - negative.mean(axis=0)) @ axis / (axis @ axis) for wells in (negative, positive)]
    assert 1 - 3 * sum(place.std(ddof=1) for place in places) / (places[1].mean() - places[0].mean()) > 0


def test_strong_controls_have_a_good_z_prime_on_each_plate() -> None:
    screen = screen_of(positives=6, features=4)
    wide = replace(
        screen.raw, features=screen.raw.features + 40 * is_positive(screen)[:, None].astype(np.float32)
    )
    found = dose(
        Screen(wide, normalize(wide, "none"), screen.settings.model_copy(update={"normalize": "none"}))
    )
    plates = found.tables["plates"]
    assert plates["Metadata_Plate"].to_list() == ["P0", "P1"]
    assert (plates["z_prime"] > 0.8).all()
    assert plates["negative_controls"].to_list() == [8, 8]
    assert plates["positive_controls"].to_list() == [6, 6]


def test_p_on_an_axis_equals_enumeration_by_scipy() -> None:
    rng = np.random.default_rng(1)
    levels, places = np.arange(6.0), np.array([0.1, 0.4, 0.2, 0.5, 0.3, 0.9])
    found = trend_along_axis(levels, places, np.zeros(6, int), most=1000, seed=0, name="x")
    exact = stats.permutation_test(
        (places,),
        lambda y: stats.spearmanr(levels, y).statistic,
        permutation_type="pairings",
        alternative="greater",
    )
    assert found.spearman == pytest.approx(stats.spearmanr(levels, places).statistic)
    assert found.p == pytest.approx(exact.pvalue)
    assert found.smallest_p == pytest.approx(1 / 720)
    sampled = trend_along_axis(levels, places, np.zeros(6, int), most=500, seed=0, name="x")
    assert sampled.p == pytest.approx(exact.pvalue, abs=0.05)
    assert sampled.smallest_p == pytest.approx(1 / 501)
    assert (
        trend_along_axis(levels, rng.normal(size=6) * 0, np.zeros(6, int), most=9, seed=0, name="x").p is None
    )


def test_p_to_the_highest_dose_equals_a_loop_that_places_every_well_again() -> None:
    features = np.random.default_rng(2).normal(size=(5, 7)) + np.arange(5)[:, None] * 0.4
    levels = np.array([1.0, 2.0, 3.0, 4.0, 4.0])

    def trend(given: np.ndarray) -> float:
        best = given == given.max()
        places = [features[i] @ features[best & (np.arange(5) != i)].mean(axis=0) for i in range(5)]
        return stats.spearmanr(given, places).statistic

    null = np.array([trend(np.array(order)) for order in set(permutations(levels))])
    found, places = trend_to_highest_dose(
        levels, features @ features.T, np.zeros(5, int), most=1000, seed=0, name="x"
    )
    assert found.spearman == pytest.approx(trend(levels))
    assert found.p == pytest.approx((null >= trend(levels) - 1e-12).mean())
    assert len(null) == 60 == round(1 / found.smallest_p)
    best = features[3:].mean(axis=0)
    np.testing.assert_allclose(places[:3], features[:3] @ best / (best @ best))


@pytest.mark.parametrize("plates", [1, 3])
@pytest.mark.parametrize("positives", [0, 5])
def test_p_of_inert_compounds_is_uniform(plates: int, positives: int) -> None:
    found = dose(
        screen_of(
            effects=(0.0,) * 60, plates=plates, replicates=1, positives=positives, negatives=12, null_size=400
        )
    )
    p = found.rows["p"].to_numpy()
    assert p.size == 60
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 3 * (level * (1 - level) / p.size) ** 0.5
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_the_lowest_active_dose_is_where_activity_begins() -> None:
    screen = screen_of(effects=(40.0, 0.0), replicates=3, plates=3, features=12)
    found = dose(screen)
    doses = found.tables["doses"].filter(pl.col("compound") == "drug 0").sort("dose")
    first = doses.filter(pl.col("q") < 0.05)["dose"].min()
    assert row(found, "drug 0")["lowest_active_dose"] == first
    assert first < 10
    assert row(found, "drug 1")["lowest_active_dose"] is None
    assert found.metrics["active"][0]["compound"] == "drug 0"
    alone = dose(screen_of(effects=(40.0,), replicates=1, plates=1))
    assert row(alone, "drug 0")["lowest_active_dose"] is None
    assert alone.metrics["doses_tested"] == 0


def test_doses_in_names_say_what_a_column_would() -> None:
    screen = screen_of()
    name, level = pl.col("Metadata_Perturbation"), pl.col("Metadata_Dose")
    spelt = pl.when(level.is_null()).then(name).otherwise(pl.format("{}@{} uM", name, level))
    named = with_metadata(screen, spelt.alias("Metadata_Perturbation"), drop=("Metadata_Dose",))
    by_name, by_column = dose(named), dose(screen)
    assert by_name.rows.drop("unit").equals(by_column.rows.drop("unit"))
    assert by_name.rows["unit"].unique().to_list() == ["uM"]
    assert by_column.rows["unit"].null_count() == by_column.rows.height


def test_units_of_a_compound_are_one_and_nearly_equal_doses_too() -> None:
    screen = screen_of(effects=(6.0,), plates=2)
    is_second = pl.col("Metadata_Plate") == "P1"
    mixed = with_metadata(
        screen,
        pl.when(is_second & (pl.col("Metadata_Dose") < 10))
        .then(pl.col("Metadata_Dose") * 1000.001)
        .otherwise(pl.col("Metadata_Dose")),
        pl.when(is_second & (pl.col("Metadata_Dose") < 10))
        .then(pl.lit("nM"))
        .otherwise(pl.lit("uM"))
        .alias("Metadata_DoseUnit"),
    )
    wells = dosed_wells(mixed)
    assert wells["unit"].unique().to_list() == ["uM"]
    assert sorted(wells["dose"].unique()) == list(DOSES)
    lost = with_metadata(mixed, pl.col("Metadata_DoseUnit").replace("nM", "mg/ml"))
    assert dosed_wells(lost).height == wells.height - 8


def test_a_positive_control_that_is_a_dose_is_placed_without_itself_and_has_no_part_in_the_trend() -> None:
    screen = screen_of(effects=(6.0,))
    is_best = pl.col("Metadata_ControlType") == "poscon"
    both = with_metadata(
        screen,
        pl.when(is_best)
        .then(pl.lit("drug 0"))
        .otherwise(pl.col("Metadata_Perturbation"))
        .alias("Metadata_Perturbation"),
        pl.when(is_best).then(100.0).otherwise(pl.col("Metadata_Dose")).alias("Metadata_Dose"),
    )
    found, plain = dose(both), dose(screen)
    assert row(found, "drug 0")["doses"] == len(DOSES) + 1
    assert row(found, "drug 0")["judged"] == row(plain, "drug 0")["judged"]
    assert row(found, "drug 0")["trend"] == row(plain, "drug 0")["trend"]
    wells = found.tables["wells"]
    assert wells.filter(is_best)["dose"].unique().to_list() == [100.0]
    assert wells["projection"].null_count() == 0
    assert wells.height == screen.raw.metadata.height


@pytest.mark.parametrize(
    "change",
    [
        {"doses": (1.0,)},
        {"plates": 1, "replicates": 1},
        {"positives": 1},
        {"effects": (0.0,), "doses": (1.0, 2.0), "replicates": 1, "plates": 1, "positives": 0},
        {"negatives": 3},
    ],
)
def test_poor_tables_give_a_reason_or_nulls_never_an_error(change: dict[str, Any]) -> None:
    found = dose(screen_of(**change))
    assert ("reason" in found.metrics) == (change == {"doses": (1.0,)})


def test_tables_without_controls_or_difference_are_not_an_error() -> None:
    screen = screen_of(normalize="none")
    bare = with_metadata(screen, pl.lit(None, pl.String).alias("Metadata_ControlType"))
    assert "no negative controls" in dose(bare).metrics["reason"]
    flat = replace(screen.raw, features=np.ones_like(screen.raw.features))
    collapsed = dose(Screen(flat, flat, screen.settings))
    assert collapsed.rows["trend"].null_count() == collapsed.rows.height
    assert collapsed.tables["plates"]["z_prime"].null_count() == 2
    assert "fraction_significant" not in collapsed.metrics


def test_the_order_of_rows_changes_nothing() -> None:
    screen = screen_of()
    order = np.random.default_rng(1).permutation(screen.raw.metadata.height)
    sorted_again = aggregate(screen.raw.only(order), "mean")
    plain = aggregate(screen.raw, "mean")
    first, second = (
        dose(Screen(raw, normalize(raw, "sphere"), screen.settings)) for raw in (plain, sorted_again)
    )
    assert first.metrics == second.metrics
    assert all(first.tables[kind].equals(table) for kind, table in second.tables.items())


def test_a_curve_is_fitted_where_the_wells_carry_it() -> None:
    levels = np.repeat(np.geomspace(0.01, 100, 9), 2)
    noise = np.random.default_rng(0).normal(0, 0.03, levels.size)
    curve = fit_curve(levels, 0.1 + 0.9 / (1 + (2.0 / levels) ** 1.5) + noise)
    assert curve is not None
    assert curve.low < 2.0 < curve.high
    assert curve.slope == pytest.approx(1.5, abs=0.4)
    assert (curve.bottom, curve.top) == pytest.approx((0.1, 1.0), abs=0.05)
    assert fit_curve(levels, noise) is None
    assert fit_curve(levels, levels) is None
    assert fit_curve(levels[:6], noise[:6]) is None


def test_noise_rarely_has_a_curve() -> None:
    rng = np.random.default_rng(3)
    levels = np.repeat(np.geomspace(0.01, 100, 9), 2)
    assert sum(fit_curve(levels, rng.normal(size=levels.size)) is not None for _ in range(100)) <= 5


def test_fifty_eight_compounds_of_a_real_plate(shared: Path) -> None:
    from cellvim.evaluate.stage import evaluate_table

    table = shared / "data" / "lincs_profiles" / "SQ00015054_normalized_feature_select.csv.gz"
    settings = EvaluateSettings(tables=(table,), out=Path("o"), tasks=("dose",))
    found = evaluate_table("lincs", table, settings).results["dose"]
    assert found.metrics["axis"] == "highest dose"
    assert found.rows["unit"].unique().to_list() == ["mmol/L"]
    assert found.metrics["compounds"] == 56
    assert found.metrics["mean_trend"]["low"] > 0.3
    assert found.metrics["smallest_p"] == pytest.approx(1 / 720)
    assert set(found.tables) == {"", "wells", "plates", "doses"}


def test_places_of_controls_come_from_fits_by_the_batches_of_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two plates of one batch: `tvn` must not be fitted by plate for the controls and by batch for all others."""
    screen = with_metadata(screen_of(normalize="tvn"), pl.lit("b").alias("Metadata_Batch"))
    asked = []

    def noted(*given: Any, **named: Any) -> Any:
        asked.append(named.get("batch"))
        return judging_spaces(*given, **named)

    monkeypatch.setattr("cellvim.evaluate.dose.axis.judging_spaces", noted)
    places_on_axis(screen)
    assert asked == ["Metadata_Batch"]
