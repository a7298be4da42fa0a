"""Dose response on plate 1049: place of every well between untreated and positive control, and what follows from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from numpy import ndarray

from cellvim.atomic import write_parquet
from cellvim.config import EvaluateSettings
from cellvim.evaluate.dose.axis import is_positive, places_on_axis
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, normalize, read_profiles
from cellvim.statistics import z_prime
from cellvim.statistics.permutation import permutation_p, spearman
from pipelines.dose_response import bootstrap, group_precision, separation

SEED = 0
HIGHEST_DOSES = 3
SHUFFLED = ("Metadata_Perturbation", "Metadata_ControlType", "Metadata_Compound", "Metadata_Dose")


def dose_response(table: Path) -> dict[str, Any]:
    """Measure the trend with dose of each compound, and the separation of the plate's controls.

    The score of a well is its place on the axis from untreated (0) to positive control (1) wells, in the features
    that `evaluate` uses: sphered and standardised on untreated wells. Controls are placed without themselves (see
    `places_on_axis`), and take no part in the trend.

    Returns:
        ``z_prime``, ``separation`` and ``high_dose_map`` (high doses among all wells) and, by compound, ``spearman`` with interval and one-sided p, and the ``curve`` of mean scores.
    """
    profiles = read_profiles(table)
    settings = EvaluateSettings(tables=(table,), out=table.parent, normalize="sphere")
    screen = Screen(profiles, normalize(profiles, settings.normalize), settings)
    is_negative, is_best = profiles.is_control, is_positive(screen)

    def fit(fitted_on: ndarray) -> Float[ndarray, "well feature"]:
        return normalize(profiles, "sphere", fitted_on=fitted_on).features.astype(np.float64)

    scores = places_on_axis(screen)
    apart = separation(fit, is_negative=is_negative, is_positive=is_best, seed=SEED)
    treated = profiles.metadata["Metadata_ControlType"].is_null().to_numpy()
    compounds = profiles.metadata.filter(treated)["Metadata_Compound"].unique(maintain_order=True)
    return {
        "z_prime": bootstrap(z_prime, scores[is_negative], scores[is_best], seed=SEED).as_metric(),
        "separation": apart.as_metric(),
        "high_dose_map": group_precision(fit(is_negative), is_best | is_high_dose(profiles)),
        "compounds": {name: _trend(profiles, scores, treated, name) for name in compounds},
    }


def is_high_dose(profiles: Profiles) -> Bool[ndarray, " well"]:
    """The three highest doses of each compound, controls left out."""
    metadata = profiles.metadata.with_columns(pl.col("Metadata_Dose").cast(pl.Float64))
    is_treated = pl.col("Metadata_ControlType").is_null()
    rank = pl.col("Metadata_Dose").rank("dense", descending=True).over("Metadata_Compound", is_treated)
    chosen = metadata.select(((rank <= HIGHEST_DOSES) & is_treated).alias("chosen"))["chosen"]
    return chosen.to_numpy()


def paired_difference(
    wells: pl.DataFrame, doses: dict[str, str], *, ours: Sequence[str], theirs: Sequence[str]
) -> float | dict[str, float]:
    """How much higher is the mean average precision of some tables than that of others, on the same wells?

    Several tables of a side (seeds) are averaged well by well. The interval resamples doses, not wells: the two
    wells of a dose rise and fall together.

    Args:
        wells: `table, Metadata_Well, ap`, as `evaluate` writes them.
        doses: What each well got; one resampled unit each.
        ours: Names of the tables on one side.
        theirs: Names of the tables on the other.
    """
    sides = [
        wells.filter(pl.col("table").is_in(list(names))).group_by("Metadata_Well").agg(pl.col("ap").mean())
        for names in (ours, theirs)
    ]
    both = sides[0].join(sides[1], on="Metadata_Well", suffix="_theirs")
    by_dose = (
        both.with_columns(pl.col("Metadata_Well").replace_strict(doses).alias("dose"))
        .group_by("dose")
        .agg((pl.col("ap") - pl.col("ap_theirs")).mean().alias("difference"))
        .sort("dose")["difference"]
    )
    return bootstrap(lambda unit: float(unit.mean()), by_dose.to_numpy(), seed=SEED).as_metric()


def write_shuffled_tables(table: Path, *, count: int) -> list[str]:
    """Write copies of a table in which what was done to each well is shuffled: nothing must be found in them."""
    content = pl.read_parquet(table)
    moved = [name for name in SHUFFLED if name in content.columns]
    names = []
    for seed in range(count):
        order = np.random.default_rng([SEED, seed]).permutation(content.height)
        shuffled = content.with_columns(content[name][order].alias(name) for name in moved)
        names.append(f"shuffled-{seed}")
        write_parquet(table.parent / f"{names[-1]}.parquet", shuffled)
    return names


def _trend(
    profiles: Profiles, scores: Float[ndarray, " well"], treated: ndarray, compound: str
) -> dict[str, Any]:
    chosen = treated & (profiles.metadata["Metadata_Compound"] == compound).to_numpy()
    dose = profiles.metadata["Metadata_Dose"].cast(pl.Float64).to_numpy()[chosen]
    pairs = np.stack([dose, scores[chosen]], axis=1)
    estimate = bootstrap(lambda wells: spearman(wells[:, 0], wells[:, 1]), pairs, seed=SEED)
    return {
        "spearman": estimate.as_metric(),
        "p": permutation_p(dose, scores[chosen], seed=SEED),
        "curve": {f"{d:g}": float(scores[chosen][dose == d].mean()) for d in np.unique(dose)},
    }
