"""The same questions for cellvim and for copairs: how to ask each of them, and how far their answers are apart."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import polars as pl
from copairs.map import average_precision, mean_average_precision, multilabel
from sklearn.metrics import average_precision_score

from cellvim.evaluate.questions import WellLabels, replicates, shared_labels
from cellvim.evaluate.retrieval import Question, Space, score_queries
from cellvim.evaluate.retrieval_tasks import averaged_groups, score_columns
from cellvim.evaluate.significance import NullDistributions, benjamini_hochberg

CONTROLS = 32
MECHANISMS, TARGETS, MOST_TARGETS = 50, 60, 3
NULL_SIZE = 10_000
GROUP, UNIT = "group", "unit"


@dataclass(frozen=True)
class Answer:
    """What either of them says: a row per query (unit, group, ap) and a row per group (group, map, p, q)."""

    queries: pl.DataFrame
    groups: pl.DataFrame


@dataclass
class Case:
    """One question, asked of both."""

    name: str
    ours: Callable[[], Answer]
    theirs: Callable[[], Answer]
    exact: Callable[[int, str], float] | None = None
    """Average precision of one query of a group by scikit-learn, in double precision; judges where the two differ."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"cellvim": [], "copairs": []})
    answers: dict[str, Answer] = field(default_factory=dict)

    def ask(self, who: str) -> None:
        """Ask one of them, and keep the time and the last answer."""
        run = {"cellvim": self.ours, "copairs": self.theirs}[who]
        started = time.perf_counter()
        self.answers[who] = run()
        self.seconds[who].append(time.perf_counter() - started)

    def differences(self) -> dict[str, float]:
        """Largest difference of each number; of q as Benjamini-Hochberg makes it from copairs' own p."""
        ours, theirs = (self.answers[who] for who in ("cellvim", "copairs"))
        queries = self.both_queries()
        means = theirs.groups.select(GROUP, "map", "p")
        groups = ours.groups.join(means, on=GROUP, how="full", suffix="_theirs")
        return {
            "ap": largest(queries, "ap"),
            "map": largest(groups, "map"),
            "p": largest(groups, "p"),
            "q": largest(theirs.groups, "q"),
        }

    def both_queries(self) -> pl.DataFrame:
        ours, theirs = (self.answers[who].queries for who in ("cellvim", "copairs"))
        return ours.join(theirs, on=[UNIT, GROUP], how="full", suffix="_theirs")

    def judged(self, *, most: float) -> tuple[int, float, float]:
        """Queries whose two answers differ by more than `most`; how far ours and theirs are from the definition there."""
        apart = self.both_queries().filter((pl.col("ap") - pl.col("ap_theirs")).abs() > most)
        if self.exact is None or apart.is_empty():
            return apart.height, 0.0, 0.0
        truth = np.array([self.exact(unit, group) for unit, group in apart.select(UNIT, GROUP).iter_rows()])
        ours, theirs = (np.abs(apart[name].to_numpy() - truth).max() for name in ("ap", "ap_theirs"))
        return apart.height, float(ours), float(theirs)


def largest(table: pl.DataFrame, name: str) -> float:
    """Largest difference of two columns; infinite where one has a row that the other has not."""
    difference = (table[name] - table[f"{name}_theirs"]).abs()
    return float("inf") if difference.null_count() else float(difference.max())  # type: ignore[arg-type]


def make_cases(*, plates: int, wells: int, features: int) -> list[Case]:
    """Questions on random profiles: time does not depend on their values.

    One perturbation per well and plate, repeated on every plate, 32 negative controls per plate; 50 mechanisms; for
    consensus profiles one to three of 60 targets each.
    """
    perturbation = np.tile(np.r_[np.zeros(CONTROLS, int), 1 + np.arange(wells - CONTROLS)], plates)
    profiles = np.random.default_rng(0).normal(size=(plates * wells, features)).astype(np.float32)
    labels = WellLabels(np.repeat(np.arange(plates), wells), perturbation, perturbation == 0)
    table = pd.DataFrame({"plate": labels.plate, "perturbation": perturbation, "control": labels.is_control})
    across = {"pos_diffby": ["plate"], "neg_sameby": [], "neg_diffby": ["perturbation"]}
    near = {"pos_diffby": [], "neg_sameby": ["plate"], "neg_diffby": ["control"]}
    return [
        replicate_case("activity", near, profiles, labels, table),
        replicate_case("replicate_retrieval", across, profiles, labels, table),
        mechanism_case(profiles, table),
        consistency_case(profiles, perturbation),
    ]


def replicate_case(
    task: str, rules: dict[str, list[str]], profiles: np.ndarray, labels: WellLabels, table: pd.DataFrame
) -> Case:
    def ours() -> Answer:
        return own_answer(profiles, replicates(labels, task))  # type: ignore[arg-type]

    def theirs() -> Answer:
        found = average_precision(
            table, profiles.astype(np.float64), pos_sameby=["perturbation"], progress_bar=False, **rules
        )
        return peer_answer(found[~found["control"]], "perturbation")

    return Case(task.replace("_", " "), ours, theirs)


def mechanism_case(profiles: np.ndarray, table: pd.DataFrame) -> Case:
    """Every treated well is to find wells of other compounds with its mechanism, among those with another one."""
    treated = np.flatnonzero(table["perturbation"].to_numpy() > 0)
    wells = table.iloc[treated].reset_index(drop=True)
    compound = wells["perturbation"].to_numpy()
    wells["mechanism"] = [f"mechanism {code % MECHANISMS:02}" for code in compound]
    own = profiles[treated]
    labels = [(name,) for name in wells["mechanism"]]

    def ours() -> Answer:
        question, names = shared_labels(labels, compound)
        return own_answer(own, question, names)

    def theirs() -> Answer:
        rules = {"pos_diffby": ["perturbation"], "neg_sameby": [], "neg_diffby": ["mechanism"]}
        found = average_precision(
            wells, own.astype(np.float64), pos_sameby=["mechanism"], progress_bar=False, **rules
        )
        return peer_answer(found, "mechanism")

    unit = own.astype(np.float64) / np.linalg.norm(own.astype(np.float64), axis=1, keepdims=True)

    def exact(query: int, mechanism: str) -> float:
        is_positive = (wells["mechanism"].to_numpy() == mechanism) & (compound != compound[query])
        asked = is_positive | (wells["mechanism"].to_numpy() != mechanism)
        return float(average_precision_score(is_positive[asked], (unit @ unit[query])[asked]))

    return Case("well-level mechanism", ours, theirs, exact)


def consistency_case(profiles: np.ndarray, perturbation: np.ndarray) -> Case:
    """Consensus profiles are to find those that share each of their targets, among those that share none."""
    count = int(perturbation.max())
    sums = np.zeros((count + 1, profiles.shape[1]))
    np.add.at(sums, perturbation, profiles)
    consensus = (sums / np.bincount(perturbation)[:, None])[1:].astype(np.float32)
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, TARGETS, rng.integers(1, MOST_TARGETS + 1)) for _ in range(count)]
    labels = [tuple(sorted({f"target {code:02}" for code in codes.tolist()})) for codes in drawn]
    table = pd.DataFrame({"target": [list(own) for own in labels]})

    def ours() -> Answer:
        question, names = shared_labels(labels, np.arange(count))
        return own_answer(consensus, question, names)

    def theirs() -> Answer:
        rules = {"pos_sameby": ["target"], "pos_diffby": [], "neg_sameby": [], "neg_diffby": ["target"]}
        named = table.assign(unit=np.arange(count))
        found = multilabel.average_precision(
            named, consensus.astype(np.float64), multilabel_col="target", progress_bar=False, **rules
        )
        return peer_answer(found.set_index("unit"), "target")

    return Case("multilabel consistency", ours, theirs)


def own_answer(profiles: np.ndarray, question: Question, names: tuple[str, ...] = ()) -> Answer:
    scores = score_queries([Space.whole(profiles)], question)
    group = np.array(names)[scores.group] if names else scores.group
    queries = pl.DataFrame({UNIT: scores.unit, GROUP: group}).hstack(score_columns(scores))
    return Answer(
        queries, averaged_groups(queries, GROUP, {}, NullDistributions(null_size=NULL_SIZE, seed=0))
    )


def peer_answer(scores: pd.DataFrame, by: str) -> Answer:
    """Mean average precision with p and q; null distributions are made anew, not read from an earlier run."""
    scores = scores[scores["n_pos_pairs"] > 0]
    with tempfile.TemporaryDirectory() as cache:
        means = mean_average_precision(
            scores,
            [by],
            null_size=NULL_SIZE,
            threshold=0.05,
            seed=0,
            progress_bar=False,
            cache_dir=cache,
        )
    queries = pl.DataFrame(
        {
            UNIT: scores.index.to_numpy(),
            GROUP: scores[by].to_numpy(),
            "ap": scores["average_precision"].to_numpy(),
        }
    )
    p = means["p_value"].to_numpy()
    groups = {
        GROUP: means[by].to_numpy(),
        "map": means["mean_average_precision"].to_numpy(),
        "p": p,
        "q": benjamini_hochberg(p),
        "q_theirs": means["corrected_p_value"].to_numpy(),
    }
    return Answer(queries, pl.DataFrame(groups))
