"""NSC and NSCB: does the nearest profile of another compound have the same target or mechanism?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray
from scipy.sparse import csr_array

from cellvim.evaluate.intervals import mean_over_units
from cellvim.evaluate.nearest import differing, nearest_blocks
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.profiles import consensus
from cellvim.profiles.schema import PERTURBATION
from cellvim.statistics import generator_for

NearestTask = Literal["nsc", "nscb"]
COMPOUND, BATCH, LABELS = "compound", "batch", "labels"
# One shuffle of few compounds says little about chance.
SHUFFLES = 3


@dataclass(frozen=True)
class LabelledProfiles:
    """Consensus profiles of perturbations that have a label.

    Args:
        rows: `Metadata_Perturbation, compound, batch` (nscb), and `labels`, a list.
        features: One row per profile.
        compound: Code of the compound.
        batch: Code of the batch; None for nsc.
    """

    rows: pl.DataFrame
    features: Float[ndarray, "profiles features"]
    compound: Int[ndarray, " profiles"]
    batch: Int[ndarray, " profiles"] | None

    @property
    def labels(self) -> list[tuple[str, ...]]:
        return [tuple(labels) for labels in self.rows[LABELS].to_list()]


@dataclass(frozen=True)
class Answers:
    """What each profile found, when asked under one labelling.

    Args:
        nearest: Row of the nearest profile; -1 if there is none to find.
        similarity: Cosine to it.
        is_correct: It shares a label with the query, and so does everything else that is as near.
        chance: Share of the profiles that may be found that share a label; 0 where the query cannot be answered.
    """

    nearest: Int[ndarray, " profiles"]
    similarity: Float64[ndarray, " profiles"]
    is_correct: Bool[ndarray, "labellings profiles"]
    chance: Float64[ndarray, "labellings profiles"]


def nsc(screen: Screen) -> TaskResult:
    """Predict a perturbation's label by its nearest neighbour among other compounds."""
    return run_nearest(screen, "nsc")


def nscb(screen: Screen) -> TaskResult:
    """Predict it by the nearest neighbour among other compounds in other batches."""
    return run_nearest(screen, "nscb")


def run_nearest(screen: Screen, task: NearestTask) -> TaskResult:
    """Ask every labelled profile for its nearest neighbour, and say how often they share a label.

    Only profiles with a label ask and are found, as in every published figure. A query whose label no other
    compound has (for nscb: in another batch) has no right answer to find: it is left out of the accuracy and
    counted as `unanswerable`, as those who report NSCB on BBBC021 leave out the mechanisms of a single batch;
    `accuracy_of_all` counts it as wrong. Its profile may still be found, wrongly, by others.

    Where several profiles are equally near, the answer is right only if all of them would be: a collapsed
    embedding gets nothing by luck.

    The interval draws compounds. Two of them are often each other's nearest, which such draws do not know: in 80
    screens without any effect it held chance in 89 % (nsc) and 85 % (nscb).

    Source:
        Ljosa et al. 2013, "Comparison of methods for image-based profiling" (not same compound); Ando et al.
        2017, "Improving phenotypic measurements in high-content imaging screens" (nor same batch).
    """
    if screen.label_column is None:
        return TaskResult.not_done(
            task, "the table has no column of targets or mechanisms: name one by --label"
        )
    profiles = labelled_profiles(screen, task)
    reason = reason_against(profiles, screen, task)
    if reason is not None:
        return TaskResult.not_done(task, reason)
    labellings = [profiles.labels, *shuffled_labels(profiles, screen.settings.seed)]
    answers = find_answers(profiles, labellings)
    if not answers.chance[0].any():
        elsewhere = " in another batch" if task == "nscb" else ""
        return TaskResult.not_done(
            task, f"no label is shared by a second compound{elsewhere}: none can be found"
        )
    metrics = accuracy_metrics(screen, task, profiles, answers)
    return TaskResult(task, metrics, {"": queries_table(profiles, answers, screen.settings.label_separator)})


def labelled_profiles(screen: Screen, task: NearestTask) -> LabelledProfiles:
    """Consensus per perturbation (for nscb per perturbation and batch), with every label that its wells have."""
    added = [screen.compounds.fill_null("").alias(COMPOUND), screen.batches.alias(BATCH)]
    keys = [PERTURBATION, COMPOUND] + ([BATCH] if task == "nscb" else [])
    labels = pl.Series(LABELS, [list(own) for own in screen.labels], pl.List(pl.String))
    treated = screen.treated(*added, labels)
    found = consensus(treated, keys, screen.settings.consensus)
    unions = treated.metadata.group_by(keys).agg(pl.col(LABELS).explode().drop_nulls().unique().sort())
    rows = found.metadata.select(keys).join(unions, on=keys, how="left", maintain_order="left")
    kept = np.flatnonzero((rows[LABELS].list.len() > 0).to_numpy())
    rows = rows[kept]
    return LabelledProfiles(
        rows=rows,
        features=found.features[kept],
        compound=codes_of(rows[COMPOUND]),
        batch=codes_of(rows[BATCH]) if task == "nscb" else None,
    )


def codes_of(names: pl.Series) -> Int[ndarray, " profiles"]:
    return np.unique(names.to_numpy().astype(str), return_inverse=True)[1]


def reason_against(profiles: LabelledProfiles, screen: Screen, task: NearestTask) -> str | None:
    if profiles.rows.is_empty():
        return f"no treated well has a label in {screen.label_column}"
    if np.unique(profiles.compound).size < 2:
        return f"only one compound has a label in {screen.label_column}: there is no other to find"
    if task == "nscb" and profiles.rows[BATCH].n_unique() < 2:
        hint = "; name another column by --batch" if len(screen.raw.plates) > 1 else ""
        return f"all labelled wells are of one batch ({screen.batch_column}){hint}"
    return None


def shuffled_labels(profiles: LabelledProfiles, seed: int) -> list[list[tuple[str, ...]]]:
    """Give each compound the labels of another, a few times: what is left of the accuracy is luck."""
    compounds = int(profiles.compound.max()) + 1
    together: list[set[str]] = [set() for _ in range(compounds)]
    for code, labels in zip(profiles.compound, profiles.labels, strict=True):
        together[code].update(labels)
    generator = generator_for(seed, "nearest", "shuffled")
    found = []
    for _ in range(SHUFFLES):
        order = generator.permutation(compounds)
        found.append([tuple(sorted(together[order[code]])) for code in profiles.compound])
    return found


def find_answers(profiles: LabelledProfiles, labellings: Sequence[Sequence[tuple[str, ...]]]) -> Answers:
    """Find the neighbour of every profile once, and judge it under each labelling; no n x n matrix."""
    size = profiles.rows.height
    tables = [label_table(labels) for labels in labellings]
    nearest, similarity = np.full(size, -1), np.full(size, np.nan)
    is_correct = np.zeros((len(tables), size), bool)
    chance = np.zeros((len(tables), size))
    codes = [profiles.compound] if profiles.batch is None else [profiles.compound, profiles.batch]
    for block in nearest_blocks(profiles.features, differing(*codes)):
        nearest[block.rows], similarity[block.rows] = block.first, block.similarity
        candidates = np.maximum(block.allowed.sum(axis=1), 1)
        for number, table in enumerate(tables):
            shares = sharing(table, block.rows)
            right = shares & block.allowed
            chance[number, block.rows] = right.sum(axis=1) / candidates
            is_correct[number, block.rows] = block.tied.any(axis=1) & ~(block.tied & ~shares).any(axis=1)
    return Answers(nearest, similarity, is_correct, chance)


def label_table(labels: Sequence[tuple[str, ...]]) -> csr_array:
    """One row per profile, one column per label, 1 where the profile has the label."""
    names = sorted({name for own in labels for name in own})
    column = {name: number for number, name in enumerate(names)}
    rows = np.repeat(np.arange(len(labels)), [len(own) for own in labels])
    columns = np.array([column[name] for own in labels for name in own])
    return csr_array((np.ones(rows.size, np.int32), (rows, columns)), shape=(len(labels), len(names)))


def sharing(table: csr_array, rows: Int[ndarray, " rows"]) -> Bool[ndarray, "rows profiles"]:
    """True where two profiles have a label in common."""
    found = (table[rows] @ table.T).tocoo()
    shares = np.zeros(found.shape, bool)
    shares[found.coords] = True
    return shares


def accuracy_metrics(
    screen: Screen, task: NearestTask, profiles: LabelledProfiles, answers: Answers
) -> dict[str, Any]:
    is_asked = answers.chance > 0
    asked = is_asked[0]
    correct = answers.is_correct[0].astype(np.float64)
    accuracy = mean_over_units(correct[asked], profiles.compound[asked], screen.settings, f"{task}/accuracy")
    shuffled = [
        answers.is_correct[number, is_asked[number]].mean()
        for number in range(1, len(is_asked))
        if is_asked[number].any()
    ]
    return {
        "label": screen.label_column,
        "queries": int(asked.sum()),
        "unanswerable": int((~asked).sum()),
        "compounds": int(np.unique(profiles.compound[asked]).size),
        "labels": len({name for own in profiles.labels for name in own}),
        "accuracy": accuracy.as_metric(),
        "accuracy_of_all": float(correct.mean()),
        "chance": float(answers.chance[0, asked].mean()),
        "shuffled": float(np.mean(shuffled)) if shuffled else 0.0,
    } | ({"batch": screen.batch_column} if task == "nscb" else {})


def queries_table(profiles: LabelledProfiles, answers: Answers, separator: str) -> pl.DataFrame:
    """One row per labelled profile; `is_correct` is null where no profile could have been a right answer."""
    is_found, is_answerable = answers.nearest >= 0, answers.chance[0] > 0
    rows = profiles.rows.with_columns(pl.col(LABELS).list.join(separator).alias("label")).drop(LABELS)
    place = pl.Series(np.where(is_found, answers.nearest, 0))
    shown = {PERTURBATION: "nearest", BATCH: "nearest_batch", "label": "nearest_label"}
    shown = {name: new for name, new in shown.items() if name in rows.columns}
    missing = ~pl.Series(is_found)
    nearest = rows[place].select(
        pl.when(missing).then(None).otherwise(pl.col(name)).alias(new) for name, new in shown.items()
    )
    similarity = pl.Series("similarity", np.where(is_found, answers.similarity, np.nan), pl.Float64)
    correct = pl.Series("is_correct", answers.is_correct[0])
    return pl.concat([rows, nearest], how="horizontal").with_columns(
        similarity.fill_nan(None), pl.when(pl.Series(is_answerable)).then(correct).alias("is_correct")
    )
