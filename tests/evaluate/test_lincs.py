"""A real LINCS plate against the results of copairs 0.5.5, and against itself: inert wells must stay inert."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.evaluate.questions import RetrievalTask
from cellvim.evaluate.retrieval import Space
from cellvim.evaluate.retrieval_tasks import judging_spaces, run_retrieval
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.stage import evaluate_table
from cellvim.profiles import Profiles, aggregate, annotate, normalize, read_profiles

STORED_IN_FLOAT32 = 1e-9
"""Features are float32 here and float64 there; no rank changes, so the results agree to rounding."""
SAMPLED_NULLS = 0.02
"""Two samples of 10,000 rank lists differ by up to four standard errors of p = 0.5."""


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "data" / "lincs_profiles"


@pytest.fixture(scope="module")
def plate(folder: Path) -> Profiles:
    return aggregate(annotate(read_profiles(folder / "SQ00015054_normalized_feature_select.csv.gz")))


def test_copairs_results_are_reproduced(folder: Path) -> None:
    """Its groups are `Metadata_broad_sample`: all doses of a compound; the table is used as it is."""
    table = folder / "SQ00015054_normalized_feature_select.csv.gz"
    theirs = pl.read_csv(folder / "SQ00015054_copairs055_activity_mAP.csv").sort("comp")
    settings = EvaluateSettings(tables=(table,), out=Path("o"), normalize="none", tasks=("activity",))
    result = evaluate_table("lincs", table, settings).results["activity"]
    ours = result.rows

    assert ours["Metadata_Perturbation"].to_list() == theirs["comp"].to_list()
    pairs = {"map": "mean_average_precision", "normalized_map": "mean_normalized_average_precision"}
    for our_name, their_name in pairs.items():
        np.testing.assert_allclose(ours[our_name], theirs[their_name], atol=STORED_IN_FLOAT32)
    np.testing.assert_allclose(ours["p"], theirs["p_value"], atol=SAMPLED_NULLS)
    assert result.metrics["mean_map"]["value"] == pytest.approx(0.6178, abs=1e-4)
    assert result.metrics["fraction_significant"]["value"] == pytest.approx(0.534, abs=0.04)


@pytest.mark.parametrize("method", ["sphere", "standardize", "mad", "none"])
def test_solvent_wells_that_pose_as_perturbations_stay_inactive(plate: Profiles, method: str) -> None:
    assert is_honest(inert_p_values(plate, method))


def test_sphering_that_has_seen_the_controls_calls_inert_wells_active(
    plate: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why controls are judged in spaces fitted without them."""

    def judge_in_one_space(
        raw: Profiles, normalized: Profiles, task: RetrievalTask, _: str, **__: object
    ) -> list[Space]:
        return list(judging_spaces(raw, normalized, task, "none"))

    monkeypatch.setattr("cellvim.evaluate.retrieval_tasks.judging_spaces", judge_in_one_space)
    assert not is_honest(inert_p_values(plate, "sphere"))


def is_honest(p: np.ndarray) -> bool:
    """Small p-values come no more often than they should, but for three standard errors."""
    return all(
        (p < level).mean() <= level + 3 * (level * (1 - level) / p.size) ** 0.5 for level in (0.05, 0.2)
    )


def inert_p_values(plate: Profiles, method: str) -> np.ndarray:
    """Of 24 DMSO wells, 12 are controls and 12 pose as four perturbations, in eight deals."""
    return np.concatenate([posing(plate, seed, method)["p"].to_numpy() for seed in range(8)])


def posing(plate: Profiles, seed: int, method: str) -> pl.DataFrame:
    """Activity of four made-up perturbations of three solvent wells each."""
    solvent = np.flatnonzero(plate.is_control)
    posers = np.random.default_rng(seed).permutation(solvent)[:12]
    names = np.array(plate.metadata["Metadata_Perturbation"].to_list(), object)
    names[posers] = [f"inert {number // 3}" for number in range(12)]
    control = np.array(plate.metadata["Metadata_ControlType"].to_list(), object)
    control[posers] = None
    metadata = plate.metadata.with_columns(
        pl.Series("Metadata_Perturbation", names.tolist()),
        pl.Series("Metadata_ControlType", control.tolist()),
    )
    kept = [
        str(name).startswith("inert") or mark is not None for name, mark in zip(names, control, strict=True)
    ]
    posed = Profiles(
        metadata.filter(kept), plate.features[kept], plate.feature_names, {}, plate.source, plate.name
    )
    settings = EvaluateSettings(
        tables=(plate.source,), out=Path("o"), normalize=method, null_size=2000, bootstraps=10
    )
    normalized = normalize(posed, method)
    return run_retrieval(Screen(posed, normalized, settings), "activity").rows
