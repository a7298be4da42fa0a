"""The questions of retrieval: which wells or perturbations should find each other, and among which others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from cellvim.evaluate.retrieval import Question

RetrievalTask = Literal["activity", "distinctiveness", "replicate_retrieval"]


@dataclass(frozen=True)
class WellLabels:
    """What retrieval needs to know of each well, as integer codes.

    Args:
        plate: Code of the plate.
        perturbation: Code of the perturbation; -1 where a well takes no part (empty, or not in the plate map).
        is_control: Negative controls: never queries, never positives.
    """

    plate: Int[ndarray, " wells"]
    perturbation: Int[ndarray, " wells"]
    is_control: Bool[ndarray, " wells"]

    @property
    def takes_part(self) -> Bool[ndarray, " wells"]:
        return np.asarray(self.perturbation >= 0)

    @property
    def is_treated(self) -> Bool[ndarray, " wells"]:
        return np.asarray(self.takes_part & ~self.is_control)


def replicates(
    wells: WellLabels, task: RetrievalTask, *, position: Int[ndarray, " wells"] | None = None
) -> Question:
    """Treated wells that should find the others of their perturbation.

    ``activity``: among the negative controls of the same plate.
    ``distinctiveness``: among other perturbations of the same plate (controls left out).
    ``replicate_retrieval``: those on another plate, among every well of another perturbation, controls included.
    The well itself is never a candidate.

    Args:
        wells: What was done to each well, and where.
        task: See above.
        position: Code of the place of each well on its plate, if positives of ``replicate_retrieval`` must lie at
            another one, too. Wells of other perturbations are negatives wherever they lie.
    """
    treated = np.flatnonzero(wells.is_treated)
    is_across = task == "replicate_retrieval"
    apart = [wells.plate, *([] if position is None else [position])] if is_across else []
    candidates = {
        "activity": wells.is_control,
        "distinctiveness": wells.is_treated,
        "replicate_retrieval": wells.is_treated | wells.is_control,
    }
    count = wells.plate.size
    return Question(
        member=treated,
        group=wells.perturbation[treated],
        kin=np.arange(count),
        apart=np.array(apart, np.int64).reshape(-1, count),
        is_candidate=candidates[task],
        arena=np.zeros(count, np.int64) if is_across else wells.plate,
    )


def shared_labels(
    labels: Sequence[Sequence[str]], compound: Int[ndarray, " units"]
) -> tuple[Question, tuple[str, ...]]:
    """Wells, or perturbations, that should find those of other compounds that share one of their labels.

    Each asks once for each of its labels. Negatives are all that share none of them, of other compounds; two
    doses of one compound are neither positive nor negative to each other. Who has no label takes no part.

    Args:
        labels: Labels of each unit, without doubles.
        compound: Code of what was given, whatever the dose.

    Returns:
        The question, and the names of its groups, sorted.

    Source:
        As `copairs.map.multilabel` with ``pos_diffby`` and ``neg_diffby`` naming the compound.
    """
    names = sorted({label for own in labels for label in own})
    code = {name: number for number, name in enumerate(names)}
    pairs = [(unit, code[label]) for unit, own in enumerate(labels) for label in own]
    member, group = np.array(pairs, np.int64).reshape(-1, 2).T
    question = Question(
        member=member,
        group=group,
        kin=compound,
        apart=np.empty((0, compound.size), np.int64),
        is_candidate=np.array([len(own) > 0 for own in labels], bool),
        arena=np.zeros(compound.size, np.int64),
    )
    return question, tuple(names)
