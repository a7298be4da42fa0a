"""Several tables against the first: by how much does each do better, on what both were asked?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cellvim.config import EvaluateSettings, TaskName
from cellvim.evaluate.intervals import mean_over_pairs, mean_over_units
from cellvim.evaluate.results import TaskResult
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL

if TYPE_CHECKING:
    from cellvim.evaluate.stage import EvaluatedTable

COMPOUND = "compound"
FEWEST_UNITS = 6
"""With fewer, all units lie on one side of 0 by luck alone in more than 5 % of comparisons (2 / 2 ** 5)."""


@dataclass(frozen=True)
class Paired:
    """What two tables are compared by.

    Args:
        metric: Name of the metric, as in metrics.json of a single table where it has one.
        items: Columns that name what both were asked.
        unit: Columns of what is resampled together; ``compound`` is known of every perturbation.
        value: What each item scored.
        table: Which table of the task.
        is_of_pairs: Each of the two columns of `unit` names an end of a pair; ends are drawn.
    """

    metric: str
    items: tuple[str, ...]
    unit: tuple[str, ...]
    value: pl.Expr
    table: str = ""
    is_of_pairs: bool = False

    def scores(self, result: TaskResult, compound_of: Mapping[str, str]) -> pl.DataFrame | None:
        """One row per item: its keys, and `score`; None where the task was not done."""
        found = result.tables.get(self.table)
        if found is not None and COMPOUND in self.unit and PERTURBATION in found.columns:
            names = found[PERTURBATION].to_list()
            compounds = [compound_of.get(name, name) for name in names]
            found = found.with_columns(pl.Series(COMPOUND, compounds, pl.String))
        if found is None or not {*self.items, *self.unit} <= set(found.columns):
            return None
        keys = list(dict.fromkeys((*self.items, *self.unit)))
        scored = found.with_columns(self.value.cast(pl.Float64).alias("score"))
        is_whole = pl.all_horizontal(pl.col(*keys, "score").is_not_null())
        return scored.filter(is_whole).group_by(keys).agg(pl.col("score").mean()).sort(keys)


def retrieval(item: str, unit: str) -> tuple[Paired, ...]:
    return tuple(
        Paired(metric, (item,), (unit,), pl.col(column))
        for metric, column in (("mean_map", "map"), ("mean_normalized_map", "normalized_map"))
    )


def probe(split: str, metric: str) -> Paired:
    """Right or wrong, well by well; what was held out together is resampled together."""
    is_right = pl.when(pl.col("split") == split).then(pl.col("label") == pl.col("predicted"))
    return Paired(metric, ("split", PLATE, WELL, "label"), ("unit",), is_right, table="wells")


CORRECT = pl.col("is_correct")
COMPARED: Mapping[TaskName, tuple[Paired, ...]] = {
    "activity": retrieval(PERTURBATION, COMPOUND),
    "distinctiveness": retrieval(PERTURBATION, COMPOUND),
    "replicate_retrieval": retrieval(PERTURBATION, COMPOUND),
    "consistency": retrieval("label", "label"),
    "nsc": (Paired("accuracy", (PERTURBATION,), (COMPOUND,), CORRECT),),
    "nscb": (Paired("accuracy", (PERTURBATION, "batch"), (COMPOUND,), CORRECT),),
    "percent_replicating": (
        Paired("fraction_replicating", (PERTURBATION,), (COMPOUND,), pl.col("is_replicating")),
    ),
    "recall": (
        Paired("recall", ("first", "second"), ("first", "second"), pl.col("is_recalled"), is_of_pairs=True),
    ),
    "dose": (Paired("mean_trend", (COMPOUND,), (COMPOUND,), pl.col("trend")),),
    "probe": (
        probe("plate_held_out", "accuracy, plate_held_out"),
        probe("perturbation_held_out", "accuracy, perturbation_held_out"),
        probe("random_well (leaky)", "accuracy, random_well (leaky)"),
    ),
}


def compare_tables(tables: Sequence["EvaluatedTable"], settings: EvaluateSettings) -> list[dict[str, Any]]:
    """Compare each table with the first, task by task, on what both were asked.

    Tables may have different wells: only perturbations (labels, compounds, pairs, wells of a probe) that both have count,
    and each table is asked among its own wells. Differences are paired: how hard a perturbation is to find cancels.

    Returns:
        One entry per task, metric and table: ``task, metric, table, against, difference`` (a number, or with its
        bootstrap interval over the shared units), ``shared`` (items), ``units`` (what is resampled) and what they are,
        ``of``. Empty for a single table.
    """
    first, *others = tables
    return [entry for other in others for entry in entries(first, other, settings)]


def entries(
    first: "EvaluatedTable", other: "EvaluatedTable", settings: EvaluateSettings
) -> Iterator[dict[str, Any]]:
    # Both tables must sort doses into the same compounds.
    compound_of = {**other.screen.compound_of, **first.screen.compound_of}
    for task, pairings in COMPARED.items():
        if task not in first.results or task not in other.results:
            continue
        for paired in pairings:
            scores = [paired.scores(table.results[task], compound_of) for table in (first, other)]
            found = paired_difference(paired, scores, settings, f"{task}/{other.name}")
            if found is not None:
                yield {
                    "task": task,
                    "metric": paired.metric,
                    "table": other.name,
                    "against": first.name,
                } | found


def paired_difference(
    paired: Paired, scores: Sequence[pl.DataFrame | None], settings: EvaluateSettings, name: str
) -> dict[str, Any] | None:
    """Mean over shared items of how much higher the other table scores; None where nothing is shared."""
    if scores[0] is None or scores[1] is None:
        return None
    keys = scores[0].columns[:-1]
    both = scores[0].join(scores[1], on=keys, suffix="_other").sort(keys)
    if both.is_empty():
        return None
    difference = (both["score_other"] - both["score"]).to_numpy()
    names = both.select(paired.unit).to_numpy().astype(str)
    unit = np.unique(names, return_inverse=True)[1].reshape(names.shape)
    name = f"comparison/{paired.metric}/{name}"
    if paired.is_of_pairs:
        estimate, of = mean_over_pairs(difference, unit, settings, name), "end of a pair"
    else:
        estimate, of = mean_over_units(difference, unit[:, 0], settings, name), paired.unit[0]
    return {
        "difference": estimate.as_metric(),
        "shared": both.height,
        "units": int(np.unique(unit).size),
        "of": of.removeprefix("Metadata_").lower(),
    }
