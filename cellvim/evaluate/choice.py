"""Which table is best, and how good is a choice? Judged on perturbations that had no say in it.

The best of many tables is partly the luckiest: its score promises too much. So perturbations are dealt into folds, the
best table is chosen by all folds but one, and judged by that one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.config import EvaluateSettings, TaskName
from cellvim.evaluate.intervals import mean_over_units
from cellvim.folds import fold_of
from cellvim.profiles.schema import PERTURBATION

if TYPE_CHECKING:
    from cellvim.evaluate.stage import EvaluatedTable

CRITERIA: tuple[TaskName, ...] = ("replicate_retrieval", "activity")
METRIC = "normalized_map"
FOLDS = 5
FEWEST_COMPOUNDS = 10

Scores = Float64[ndarray, "perturbations tables"]


def choose_table(tables: Sequence["EvaluatedTable"], settings: EvaluateSettings) -> dict[str, Any] | None:
    """Choose among tables, such as blocks of an encoder, and say how good a table so chosen is on new perturbations.

    The criterion is mean normalised mAP of `replicate_retrieval` if all tables have it, else of `activity`, over the
    perturbations that all tables have. All doses of a compound are in one fold.

    Returns:
        None for a single table; ``reason`` where there is nothing to choose by. Else ``task``, ``metric``,
        ``perturbations``, ``compounds``, ``folds``; ``estimate``: what the tables chosen without a fold score on it,
        with an interval over compounds, and the same of each table in ``tables``; ``chosen``: the best table on all
        perturbations; ``naive``: its score there, which is optimistic; ``times_chosen``: by how many folds each was.
        The estimate has no bias, but its interval takes the choices as given: where no table is better than another it
        is too narrow (of 20 tables of noise with 60 perturbations, it holds the truth 81 times in 100, of two tables 89
        times; where one table is clearly better, 92 to 94 times).
    """
    if len(tables) < 2:
        return None
    task = next((name for name in CRITERIA if all(is_judged(table, name) for table in tables)), None)
    if task is None:
        return {"reason": f"no task that all tables have been judged by: run one of {', '.join(CRITERIA)}"}
    names = [table.name for table in tables]
    shared, scores = shared_scores(tables, task)
    # As the first table names them.
    compound = [tables[0].screen.compound_of.get(name, name) for name in shared]
    fold = np.array([fold_of(name, folds=FOLDS, salt="choice") for name in compound], np.int64)
    compounds = len(set(compound))
    counts = {"task": task, "metric": METRIC, "perturbations": len(shared), "compounds": compounds}
    if compounds < FEWEST_COMPOUNDS or np.unique(fold).size < 2:
        found = f"{compounds} compounds are in all tables, too few to choose by some and judge by others"
        return counts | {"reason": f"{found}: {FEWEST_COMPOUNDS} are needed"}
    unit = np.unique(compound, return_inverse=True)[1]
    choice, held_out = cross_fitted(scores, fold)
    best = int(scores.mean(axis=0).argmax())
    chosen = Counter(names[index] for index in choice.values())

    def estimate(values: Float64[ndarray, " perturbations"], name: str) -> Any:
        return mean_over_units(values, unit, settings, f"choice/{name}").as_metric()

    return counts | {
        "folds": len(choice),
        "chosen": names[best],
        "estimate": estimate(held_out, "estimate"),
        "naive": float(scores[:, best].mean()),
        "tables": [
            {
                "name": name,
                "mean": estimate(scores[:, index], name),
                "times_chosen": chosen[name],
                "layers": layers_of(table),
            }
            for index, (name, table) in enumerate(zip(names, tables, strict=True))
        ],
    }


def is_judged(table: "EvaluatedTable", task: TaskName) -> bool:
    return task in table.results and not table.results[task].tables.get("", pl.DataFrame()).is_empty()


def shared_scores(tables: Sequence["EvaluatedTable"], task: TaskName) -> tuple[list[str], Scores]:
    """Perturbations that all tables have, sorted, and what each scores on them."""
    found: list[Mapping[str, float]] = [
        dict(table.results[task].rows.select(PERTURBATION, METRIC).drop_nulls().iter_rows())
        for table in tables
    ]
    shared = sorted(set.intersection(*map(set, found)))
    scores = [[own[name] for own in found] for name in shared]
    return shared, np.array(scores, np.float64).reshape(len(shared), len(tables))


def cross_fitted(
    scores: Scores, fold: Int[ndarray, " perturbations"]
) -> tuple[dict[int, int], Float64[ndarray, " perturbations"]]:
    """Table chosen without each fold (the first of equals), and the scores on the fold of the one so chosen."""
    held_out = np.empty(len(scores))
    choice = {}
    for number in np.unique(fold):
        own = fold == number
        choice[int(number)] = int(scores[~own].mean(axis=0).argmax())
        held_out[own] = scores[own, choice[int(number)]]
    return choice, held_out


def layers_of(table: "EvaluatedTable") -> list[int] | None:
    """Blocks of the encoder that the table was made of; None where it does not say."""
    layers = table.raw.provenance.get("layers")
    return list(layers) if isinstance(layers, list | tuple) and layers else None
