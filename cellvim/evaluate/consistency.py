"""Consistency: do perturbations that share a target or mechanism resemble each other?"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from cellvim.evaluate.questions import shared_labels
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import Space, score_queries
from cellvim.evaluate.retrieval_tasks import averaged_groups, codes_of, headline, score_columns
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import NullDistributions
from cellvim.profiles import Profiles, consensus
from cellvim.profiles.schema import PERTURBATION

COMPOUND, LABELS = "Metadata_CompoundOfLabel", "Metadata_LabelsOfWell"


def consistency(screen: Screen) -> TaskResult:
    """Score the consensus profile of every perturbation once for each of its labels, and average over labels.

    Positives share that label and are of another compound, negatives share no label; perturbations without any
    label take no part.

    Returns:
        Rows `label, perturbations, map, normalized_map, p, q, smallest_p`, and `perturbations`:
        `Metadata_Perturbation, label, ap, normalized_ap, positives, total`.
    """
    column = screen.label_column
    if column is None:
        return TaskResult.not_done(
            "consistency", "the table has no column of targets or mechanisms: name it with --label"
        )
    profiles, labels = labelled_perturbations(screen)
    compound = codes_of(profiles.metadata[COMPOUND])
    question, names = shared_labels(labels, compound)
    scores = score_queries([Space.whole(profiles.features)], question)
    if scores.unit.size == 0:
        return TaskResult.not_done("consistency", reason_of(labels, column))
    rows = (
        profiles.metadata[scores.unit]
        .select(PERTURBATION)
        .hstack([pl.Series("label", np.array(names)[scores.group], pl.String), *score_columns(scores)])
    )
    nulls = NullDistributions(null_size=screen.settings.null_size, seed=screen.settings.seed)
    groups = averaged_groups(rows, "label", {"perturbations": pl.len()}, nulls)
    metrics = {
        "label": column,
        "labels": groups.height,
        "perturbations": rows[PERTURBATION].n_unique(),
        "compounds": int(np.unique(compound[scores.unit]).size),
        "queries": rows.height,
        "queries_without_candidates": scores.dropped,
    } | headline("consistency", groups, scores, screen.settings, unit=np.arange(groups.height))
    return TaskResult("consistency", metrics, {"": groups, "perturbations": rows.sort(PERTURBATION, "label")})


def labelled_perturbations(screen: Screen) -> tuple[Profiles, list[tuple[str, ...]]]:
    """Consensus profile of each treated perturbation, its compound, and the labels of all its wells."""
    wells = screen.treated(
        screen.compounds.alias(COMPOUND), pl.Series(LABELS, screen.labels, dtype=pl.List(pl.String))
    )
    profiles = consensus(wells, [PERTURBATION], screen.settings.consensus)
    # In the order of the profiles, which come out sorted by perturbation.
    known = (
        wells.metadata.group_by(PERTURBATION)
        .agg(pl.col(COMPOUND).min(), pl.col(LABELS).explode().drop_nulls().unique().sort())
        .sort(PERTURBATION)
    )
    named = profiles.metadata.select(PERTURBATION).with_columns(known[COMPOUND])
    labels = [tuple(own) for own in known[LABELS].to_list()]
    return Profiles(
        named, profiles.features, profiles.feature_names, {}, profiles.source, profiles.name
    ), labels


def reason_of(labels: Sequence[Sequence[str]], column: str) -> str:
    """Say why no perturbation has somebody to find."""
    found = len({label for own in labels for label in own})
    if found == 1:
        return f"all labels of {column} are the same: pass another column to --label"
    return (
        f"no label of {column} is shared by two compounds while others lack it ({found} labels): "
        "pass a column of targets or mechanisms to --label"
    )
