"""Inert wells stay inert: white noise in, no more small p-values out than chance allows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.config import EvaluateSettings
from cellvim.errors import InputError
from cellvim.evaluate.questions import RetrievalTask
from cellvim.evaluate.retrieval import Space
from cellvim.evaluate.retrieval_tasks import run_retrieval
from cellvim.evaluate.screen import Screen, compounds_of
from cellvim.profiles import Profiles, normalize

FITTED = ("standardize", "mad", "sphere")
SEEDS = range(3)
PERTURBATIONS, REPLICATES, FEATURES = 40, 4, 200


def white_noise(seed: int, *, controls: int) -> Profiles:
    """One plate of inert perturbations; every well is drawn from the same distribution."""
    names = [f"inert {number}" for number in range(PERTURBATIONS) for _ in range(REPLICATES)]
    names += ["DMSO"] * controls
    wells = [f"{'ABCDEFGHIJKLMNOP'[place // 24]}{place % 24 + 1:02}" for place in range(len(names))]
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": ["P"] * len(names),
            "Metadata_Well": wells,
            "Metadata_Perturbation": names,
            "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names],
        },
        schema_overrides={"Metadata_ControlType": pl.String},
    )
    features = np.random.default_rng(seed).normal(size=(len(names), FEATURES)).astype(np.float32)
    labels = tuple(f"emb_{index:04}" for index in range(FEATURES))
    return Profiles(metadata, features, labels, {}, Path("noise.parquet"), "noise")


def p_values(raw: Profiles, method: str) -> np.ndarray:
    settings = EvaluateSettings(
        tables=(raw.source,), out=Path("o"), normalize=method, null_size=1000, bootstraps=10
    )
    found = run_retrieval(Screen(raw, normalize(raw, method), settings), "activity")
    return found.rows["p"].to_numpy()


@pytest.mark.parametrize("controls", [6, 8])
@pytest.mark.parametrize("method", [*FITTED, "none"])
def test_white_noise_is_not_called_active(method: str, controls: int) -> None:
    p = np.concatenate([p_values(white_noise(seed, controls=controls), method) for seed in SEEDS])
    for level in (0.05, 0.2):
        assert (p < level).mean() <= level + 3 * (level * (1 - level) / p.size) ** 0.5


@pytest.mark.parametrize("method", FITTED)
def test_a_fit_that_has_seen_the_controls_calls_white_noise_active(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why every method judges controls in spaces fitted without them."""

    def judge_in_one_space(
        _: Profiles, normalized: Profiles, task: RetrievalTask, __: str, **___: object
    ) -> list[Space]:
        assert task == "activity"
        return [Space.whole(normalized.features)]

    monkeypatch.setattr("cellvim.evaluate.retrieval_tasks.judging_spaces", judge_in_one_space)
    p = np.concatenate([p_values(white_noise(seed, controls=8), method) for seed in SEEDS])
    assert (p < 0.05).mean() > 0.1


@pytest.mark.parametrize("method", FITTED)
def test_a_plate_that_cannot_spare_a_control_is_refused(method: str) -> None:
    assert p_values(white_noise(0, controls=3), method).size == PERTURBATIONS
    with pytest.raises(InputError, match="fewer than 3 negative controls"):
        p_values(white_noise(0, controls=2), method)


def test_chance_is_of_the_same_mean_as_what_stands_beside_it() -> None:
    """Two replicates here and twelve there: a mean over perturbations has another chance than one over wells."""
    rng = np.random.default_rng(0)
    means, chances = [], []
    for _ in range(30):
        raw = white_noise(0, controls=30)
        names = (
            [f"pair {n // 2}" for n in range(40)] + [f"many {n // 12}" for n in range(120)] + ["DMSO"] * 30
        )
        metadata = raw.metadata.with_columns(pl.Series("Metadata_Perturbation", names))
        wells = replace(raw, metadata=metadata, features=rng.normal(size=(190, 6)).astype(np.float32))
        settings = EvaluateSettings(
            tables=(raw.source,), out=Path("o"), normalize="none", null_size=50, bootstraps=2
        )
        found = run_retrieval(Screen(wells, wells, settings), "activity").metrics
        means.append(found["mean_map"]["value"])
        chances.append(found["chance_map"])
    error = np.std(means, ddof=1) / len(means) ** 0.5
    assert abs(np.mean(means) - np.mean(chances)) < 4 * error


def test_an_interval_draws_compounds_with_all_their_doses() -> None:
    """Ten compounds of four doses, alike within a compound: as wide as of ten numbers, not of forty."""
    raw = white_noise(0, controls=8)
    strong = np.repeat(np.arange(PERTURBATIONS) // 4 % 2, REPLICATES)
    features = raw.features.copy()
    features[: strong.size] += (
        6 * strong[:, None] * np.repeat(np.eye(PERTURBATIONS, FEATURES), REPLICATES, axis=0)
    )
    compound = [f"c{number // 4}" for number in range(PERTURBATIONS) for _ in range(REPLICATES)] + [
        "DMSO"
    ] * 8
    widths = {}
    for name, column in (("Metadata_Compound", compound), ("Metadata_Other", compound)):
        wells = replace(raw, features=features, metadata=raw.metadata.with_columns(pl.Series(name, column)))
        settings = EvaluateSettings(
            tables=(raw.source,), out=Path("o"), normalize="none", null_size=50, bootstraps=400
        )
        metric = run_retrieval(Screen(wells, wells, settings), "activity").metrics["mean_map"]
        widths[name] = metric["high"] - metric["low"]
    assert widths["Metadata_Compound"] > 1.6 * widths["Metadata_Other"]


def test_doses_in_names_are_doses_of_one_compound() -> None:
    metadata = pl.DataFrame(
        {"Metadata_Perturbation": ["drug@0.5 uM", "drug@2 uM", " drug@1", "siRNA@pool", "DMSO", None]}
    )
    assert compounds_of(metadata).to_list() == ["drug", "drug", "drug", "siRNA@pool", "DMSO", None]
    named = metadata.with_columns(Metadata_Compound=pl.Series(["a@1", None, None, None, None, None]))
    assert compounds_of(named).to_list()[:2] == ["a@1", "drug"]


def test_controls_that_a_whitening_has_seen_are_no_easier_to_pass_across_plates() -> None:
    """Two plates of white noise: without unseen controls some 40 % of p are at most 0.2."""
    p = []
    for seed in range(16):
        rng = np.random.default_rng(seed)
        names = [*(f"inert {number}" for number in range(12)), *["DMSO"] * 16] * 2
        metadata = pl.DataFrame(
            {
                "Metadata_Plate": np.repeat(["P", "Q"], 28),
                "Metadata_Well": [f"{'AB'[place // 24]}{place % 24 + 1:02}" for place in range(28)] * 2,
                "Metadata_Perturbation": names,
                "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names],
            },
            schema_overrides={"Metadata_ControlType": pl.String},
        )
        features = rng.normal(size=(56, FEATURES)).astype(np.float32)
        raw = Profiles(
            metadata, features, tuple(map(str, range(FEATURES))), {}, Path("noise.parquet"), "noise"
        )
        settings = EvaluateSettings(
            tables=(raw.source,), out=Path("o"), null_size=500, bootstraps=2, seed=seed
        )
        screen = Screen(raw, normalize(raw, "sphere"), settings)
        p.append(run_retrieval(screen, "replicate_retrieval").rows["p"].to_numpy())
    found = np.concatenate(p)
    assert (found <= 0.2).mean() <= 0.2 + 3 * (0.2 * 0.8 / found.size) ** 0.5
