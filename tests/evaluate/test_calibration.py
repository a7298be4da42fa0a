"""P-values where nothing does anything: a sample of the benchmark, with judges that must fail it."""

import dataclasses

import numpy as np
import pytest

from benchmarks.calibration import EXCESS_BOUND, calibrate
from benchmarks.calibration_bands import LEVELS, SMALL, Calibration
from benchmarks.null_screens import DESIGNS, Design, null_screen

RUNS = 20
# Twenty runs of a few dozen groups leave this much to luck, at four standard errors.
LUCK = 0.04
NULL_SIZE = 500
BY_NAME = {design.name: design for design in DESIGNS}


def found(name: str, **changes: object) -> dict[str, Calibration]:
    return calibrate(dataclasses.replace(BY_NAME[name], **changes), runs=RUNS, null_size=NULL_SIZE)


@pytest.mark.parametrize("name", ["3 replicates", "two plates", "sphere, plates differ"])
def test_small_p_values_are_no_commoner_than_they_say(name: str) -> None:
    tasks = found(name, has_single_wells=False, replicates=BY_NAME[name].replicates[:20])
    assert set(tasks) == set(BY_NAME[name].tasks)
    for one in tasks.values():
        assert one.excess() <= EXCESS_BOUND + LUCK
        assert one.calls.mean() <= 0.05
        assert one.calls_interval()[0] <= 0.05


def test_p_values_of_single_wells_are_uniform() -> None:
    tasks = found("3 replicates")
    for task in ("activity", "distinctiveness", "replicate_retrieval"):
        assert tasks[f"{task}, one well"].distance() <= 0.02 + LUCK
        assert tasks[task].distance() > 2 * LUCK


def test_more_replicates_make_p_values_more_conservative() -> None:
    few, many = (
        found(name, broken="", has_single_wells=False, tasks=("activity",))
        for name in ("3 replicates", "12 replicates, 4 plates")
    )
    assert many["activity"].at(0.1) < few["activity"].at(0.1) < 0.1


@pytest.mark.parametrize(
    ("name", "judge"),
    [
        ("6 replicates", "the best well decides"),
        ("many features, few controls", "a fit that saw the controls"),
    ],
)
def test_what_is_broken_is_found_out(name: str, judge: str) -> None:
    """The same screens, judged as they must not be; the task itself stays within the bound."""
    tasks = found(name, tasks=("activity",), has_single_wells=False, replicates=BY_NAME[name].replicates[:20])
    assert tasks[f"broken: {judge}"].excess() > 2 * (EXCESS_BOUND + LUCK)
    assert tasks["activity"].excess() <= EXCESS_BOUND + LUCK


def test_uniform_p_values_have_no_excess_and_an_interval_that_holds_5_percent() -> None:
    generator = np.random.default_rng(0)
    one = Calibration.of([(p, p) for p in generator.random((400, 50))])
    assert abs(one.excess(up_to=1)) < 0.02
    assert one.distance() <= one.distance_limit() < 0.04
    assert one.excess_limit() > one.excess()
    assert one.at(SMALL) == pytest.approx(SMALL, abs=0.01)
    assert one.share.size == LEVELS.size


def test_dependence_within_a_run_widens_the_band() -> None:
    generator = np.random.default_rng(0)
    free = Calibration.of([(p, p) for p in generator.random((100, 50))])
    tied = Calibration.of([(np.full(50, p), np.full(50, p)) for p in generator.random(100)])
    every = np.ones(LEVELS.size, bool)
    assert tied.band(every) > 3 * free.band(every)


@pytest.mark.parametrize(
    ("calls", "low", "high"), [(0, 0.0, 0.0362), (100, 0.9638, 1.0), (5, 0.0164, 0.1128)]
)
def test_the_interval_of_runs_is_clopper_and_pearson_s(calls: int, low: float, high: float) -> None:
    q = [np.array([0.01 if run < calls else 0.5]) for run in range(100)]
    one = Calibration.of([(value, value) for value in q])
    assert one.runs_with_calls == calls
    assert one.calls_interval() == pytest.approx((low, high), abs=1e-4)


def test_a_screen_is_a_function_of_its_design_and_run() -> None:
    design = Design("small", (2, 3), controls=3)
    one, same, other = (null_screen(design, run, null_size=10) for run in (4, 4, 5))
    np.testing.assert_array_equal(one.raw.features, same.raw.features)
    assert not np.array_equal(one.raw.features, other.raw.features)
    assert one.raw.metadata.equals(same.raw.metadata)
    counts = one.raw.metadata["Metadata_Perturbation"].value_counts().sort("Metadata_Perturbation")["count"]
    assert counts.to_list() == [9, 2, 3]


def test_every_p_value_weighs_the_same_whatever_its_run() -> None:
    few, many = np.full(2, 0.9), np.full(98, 0.1)
    one = Calibration.together([Calibration.of([(few, few)]), Calibration.of([(many, many)])])
    assert one.at(0.5) == pytest.approx(0.98)
    assert one.size == 100
