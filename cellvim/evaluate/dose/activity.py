"""Which doses are active? Every dose of every compound as a perturbation of its own."""

from dataclasses import replace

import numpy as np
import polars as pl

from cellvim.evaluate.retrieval_tasks import SIGNIFICANT_Q, run_retrieval
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles
from cellvim.profiles.schema import PERTURBATION

SERIES = ["compound", "dose"]
MEASURES = ("replicates", "map", "normalized_map", "p", "q", "smallest_p")


def active_doses(screen: Screen, dosed: pl.DataFrame) -> pl.DataFrame:
    """Activity of each dose of each compound, as the task `activity` has it, over the dosed wells and the controls.

    Args:
        screen: All wells.
        dosed: As from `dosed_wells`.

    Returns:
        `compound, dose, unit, wells`, `replicates, map, normalized_map, p, q, smallest_p, is_active`; the latter are
        null where a dose has a single well, so that nothing can be retrieved.
    """
    groups = dosed.group_by(*SERIES, "unit").agg(pl.len().cast(pl.Int64).alias("wells")).sort(*SERIES, "unit")
    groups = groups.with_row_index("number")
    # A number for a name: names are text of strangers, and a dose may be spelt like a control.
    numbered = dosed.join(groups, on=[*SERIES, "unit"], how="left", nulls_equal=True, maintain_order="left")
    names = np.array(screen.raw.metadata[PERTURBATION].cast(pl.String).to_list(), object)
    names[numbered["well"].to_numpy()] = [f"{number:09}" for number in numbered["number"]]
    rows = np.union1d(numbered["well"].to_numpy(), np.flatnonzero(screen.wells.is_control))

    def regrouped(profiles: Profiles) -> Profiles:
        column = pl.Series(PERTURBATION, names.tolist(), pl.String)
        return replace(profiles, metadata=profiles.metadata.with_columns(column)).only(rows)

    by_dose = Screen(regrouped(screen.raw), regrouped(screen.normalized), screen.settings)
    found = run_retrieval(by_dose, "activity").rows.select(
        pl.col(PERTURBATION).cast(pl.UInt32).alias("number"), *MEASURES
    )
    return (
        groups.join(found, on="number", how="left", maintain_order="left")
        .drop("number")
        .with_columns((pl.col("q") < SIGNIFICANT_Q).alias("is_active"))
    )
