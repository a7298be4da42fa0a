"""One process per task and number of plates: seconds, and the most memory that the process ever took.

    python -m benchmarks.evaluate_growth replicate_retrieval --plates 100

Prints one JSON object. Memory is the peak resident memory of the whole process, interpreter, libraries and the table
itself included, nothing subtracted.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.processes import own_resident_mib
from cellvim.config import EvaluateSettings
from cellvim.evaluate.questions import shared_labels
from cellvim.evaluate.retrieval import Space, score_queries
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.tasks import TASKS
from cellvim.profiles import Profiles, normalize

CONTROLS = 32
MECHANISMS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=list(RUNS))
    parser.add_argument("--plates", type=int, required=True)
    parser.add_argument("--wells", type=int, default=384, help="per plate")
    parser.add_argument("--features", type=int, default=384)
    arguments = parser.parse_args()
    prepare = RUNS[arguments.what]
    run = prepare(random_profiles(arguments.plates, arguments.wells, arguments.features))
    before_mib = own_resident_mib("VmRSS")
    started = time.perf_counter()
    run()
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "peak_mib": own_resident_mib("VmHWM"), "before_mib": before_mib}
    print(json.dumps(found))


def random_profiles(plates: int, wells: int, features: int) -> Profiles:
    """Plates alike: 32 negative controls and one well of each perturbation, with two targets each."""
    code = np.tile(np.r_[np.zeros(CONTROLS, int), 1 + np.arange(wells - CONTROLS)], plates)
    values = np.random.default_rng(0).standard_normal((plates * wells, features), dtype=np.float32)
    rows, columns = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", 24
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": np.repeat([f"P{number:03}" for number in range(plates)], wells),
            "Metadata_Well": [f"{rows[at // columns]}{at % columns + 1:02}" for at in range(wells)] * plates,
            "Metadata_Perturbation": [f"drug {number}" if number else "DMSO" for number in code],
            "Metadata_ControlType": [None if number else "negcon" for number in code],
            "Metadata_Target": [f"a{number % 40}|b{number % 33}" if number else None for number in code],
        }
    )
    names = tuple(f"emb_{index:04}" for index in range(features))
    return Profiles(metadata, values, names, {}, Path("random.parquet"), "random")


def task(name: str) -> Callable[[Profiles], Callable[[], object]]:
    """Run a task as `cellvim evaluate` does, on profiles sphered beforehand."""

    def prepare(raw: Profiles) -> Callable[[], object]:
        settings = EvaluateSettings(tables=(raw.source,), out=Path("unused"))
        screen = Screen(raw, normalize(raw, "sphere"), settings)
        return lambda: TASKS[name](screen)  # type: ignore[index]

    return prepare


def mechanism_of_wells(raw: Profiles) -> Callable[[], object]:
    """Every treated well asks for those of other compounds with its mechanism, one of 50."""
    kept = np.flatnonzero(~raw.is_control)
    compound = raw.metadata["Metadata_Perturbation"].rank("dense").to_numpy()[kept].astype(np.int64)
    labels = [(f"mechanism {code % MECHANISMS}",) for code in compound]
    features = raw.features[kept]
    return lambda: score_queries([Space.whole(features)], shared_labels(labels, compound)[0])


def sphering(raw: Profiles) -> Callable[[], object]:
    """Fit to the negative controls of all plates, apply to every well, and scale by plate."""
    return lambda: normalize(raw, "sphere")


def sphering_all(raw: Profiles) -> Callable[[], object]:
    """Fit to every well and apply to every well: what a peer is asked for, too."""
    from cellvim.profiles.sphere import fit_sphere

    features = raw.features.astype(np.float64)
    return lambda: fit_sphere(features).apply(features)


def sphering_by_pycytominer(raw: Profiles) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pycytominer.operations.transform import Spherize
    features = pd.DataFrame(raw.features.astype(np.float64), columns=list(raw.feature_names))
    return lambda: Spherize(method="ZCA-cor", epsilon=1).fit(features).transform(features)


RUNS: dict[str, Callable[[Profiles], Callable[[], object]]] = {
    "activity": task("activity"),
    "replicate_retrieval": task("replicate_retrieval"),
    "consistency": task("consistency"),
    "mechanism_of_wells": mechanism_of_wells,
    "sphering": sphering,
    "sphering_all": sphering_all,
    "sphering_by_pycytominer": sphering_by_pycytominer,
}

if __name__ == "__main__":
    main()
