"""Retrieval against copairs 0.5.5: the same average precisions, and how long both take.

    python benchmarks/evaluate.py [--plates 10] [--repeats 5] [--skip-copairs]

One perturbation per well and plate, repeated on every plate, 32 negative controls per plate, random features:
time does not depend on their values. Prints the machine, the command, medians, and the largest difference.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from copairs.map import average_precision as copairs_average_precision

from cellvim.evaluate.retrieval import QueryScores, RetrievalTask, Space, WellLabels, score_queries
from cellvim.provenance import package_versions

WELLS, FEATURES, CONTROLS = 384, 384, 32
RULES: dict[RetrievalTask, dict[str, list[str]]] = {
    "activity": {"pos_diffby": [], "neg_sameby": ["plate"], "neg_diffby": ["control"]},
    "replicate_retrieval": {"pos_diffby": ["plate"], "neg_sameby": [], "neg_diffby": ["perturbation"]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plates", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-copairs", action="store_true")
    arguments = parser.parse_args()
    features, labels = screen(arguments.plates)
    results = [
        compare(task, features, labels, repeats=arguments.repeats, has_peer=not arguments.skip_copairs)
        for task in RULES
    ]
    machine = {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }
    versions = package_versions(("numpy", "copairs", "pandas"))
    content = {
        "command": sys.argv,
        "machine": machine,
        "load": os.getloadavg(),
        "versions": versions,
        "results": results,
    }
    print(json.dumps(content, indent=2))


def screen(plates: int) -> tuple[np.ndarray, WellLabels]:
    perturbation = np.tile(np.r_[np.zeros(CONTROLS, int), 1 + np.arange(WELLS - CONTROLS)], plates)
    features = np.random.default_rng(0).normal(size=(plates * WELLS, FEATURES)).astype(np.float32)
    return features, WellLabels(np.repeat(np.arange(plates), WELLS), perturbation, perturbation == 0)


def compare(
    task: RetrievalTask, features: np.ndarray, labels: WellLabels, *, repeats: int, has_peer: bool
) -> dict[str, object]:
    """Median seconds of both, and how far their results are apart."""
    ours: list[QueryScores] = []
    found: dict[str, object] = {"task": task, "wells": len(features), "features": features.shape[1]}
    found["cellvim_s"] = median_seconds(
        lambda: ours.append(score_queries([Space.whole(features)], labels, task)), repeats
    )
    if not has_peer:
        return found
    table = pd.DataFrame(
        {"plate": labels.plate, "perturbation": labels.perturbation, "control": labels.is_control}
    )
    theirs: list[pd.DataFrame] = []

    def run_peer() -> None:
        rules = RULES[task]
        theirs.append(
            copairs_average_precision(
                table, features.astype(np.float64), pos_sameby=["perturbation"], progress_bar=False, **rules
            )
        )

    seconds = median_seconds(run_peer, min(repeats, 3))
    expected = theirs[0].loc[ours[0].well, "average_precision"].to_numpy()
    difference = np.abs(ours[0].average_precision - expected).max()
    return found | {
        "copairs_s": seconds,
        "times_faster": seconds / float(str(found["cellvim_s"])),
        "largest_difference": float(difference),
    }


def median_seconds(run: Callable[[], None], repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


if __name__ == "__main__":
    main()
