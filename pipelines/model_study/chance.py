"""What the metrics of the synthetic plates would be if profiles said nothing of what was done to a well."""

import numpy as np

from cellvim.evaluate.precision import expected_average_precision
from pipelines.model_study.plates import INERT, JUDGED_REPLICATES, STRENGTHS, SyntheticSize, list_compounds


def chance_levels(size: SyntheticSize) -> dict[str, float]:
    """Chance level by metric, which follows from the layout of the judged plates.

    Activity and retrieval: average precision that a random order has on average. Mechanism probe: how often a guess
    is right that names each mechanism as often as it occurs; the inert perturbations are a mechanism to the probe,
    and are not counted among its successes.
    """
    labelled = JUDGED_REPLICATES * (len(list_compounds(size.effect)) + INERT)
    levels = {metric: _chance_of_retrieval(*candidates(size, metric)) for metric in ("activity", "retrieval")}
    return levels | {"probe": JUDGED_REPLICATES * len(STRENGTHS) / labelled}


def candidates(size: SyntheticSize, metric: str) -> tuple[int, int]:
    """Replicates that a well is to find, and wells in its list altogether.

    Activity: replicates on all judged plates, among the controls of the well's own plate. Retrieval: replicates on
    other plates, among all wells of all plates that hold something else.
    """
    replicates = JUDGED_REPLICATES * size.judged
    if metric == "activity":
        return replicates - 1, replicates - 1 + size.judged_controls
    elsewhere = replicates - JUDGED_REPLICATES
    return elsewhere, elsewhere + size.wells * size.judged - replicates


def _chance_of_retrieval(positives: int, total: int) -> float:
    return float(expected_average_precision(np.array([positives]), np.array([total]))[0])
