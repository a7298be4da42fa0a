"""Are p-values honest where nothing does anything? Random profiles under random labels, judged by the real tasks.

    python -m benchmarks.calibration --runs 200 --docs docs/calibration.md

Groups of one run share controls and profiles, so that they are not independent: runs are the unit throughout.
Bands are one-sided 95 % bands by bootstrap over runs, for all levels at once; the chance that a run calls anything
has an exact (Clopper-Pearson) limit.
"""

import argparse
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.calibration_bands import FALSE_CALLS, LEVELS, SMALL, Calibration, PAndQ
from benchmarks.findings import Cell, Findings, Table, as_markdown, at_least, at_most
from benchmarks.null_screens import DESIGNS, RETRIEVAL, Design, null_screen
from cellvim.evaluate.questions import replicates
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval import Space, score_queries
from cellvim.evaluate.retrieval_tasks import perturbations_table, wells_table
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import NullDistributions, benjamini_hochberg
from cellvim.evaluate.tasks import TASKS
from cellvim.statistics import generator_for

EXCESS_BOUND = 0.02
"""Largest excess of P(p <= level) over the level, at levels up to `SMALL`."""
UNIFORM_BOUND = 0.02
"""Largest distance of the p-value of a single well from uniform, at any level, once its steps are smoothed."""
NULL_SIZE = 2000
Judge = Callable[[Screen], PAndQ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--null-size", type=int, default=NULL_SIZE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--docs", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    with ProcessPoolExecutor(arguments.workers) as pool:
        measure = partial(calibrate, runs=arguments.runs, null_size=arguments.null_size)
        found = dict(zip([design.name for design in DESIGNS], pool.map(measure, DESIGNS), strict=True))
    findings = summary(found)
    findings.seconds = time.perf_counter() - started
    text = as_markdown([findings], heading(arguments.runs, arguments.null_size))
    if arguments.docs is not None:
        arguments.docs.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    raise SystemExit(0 if all(goal.is_met for goal in findings.goals) else 1)


def calibrate(design: Design, *, runs: int, null_size: int) -> dict[str, Calibration]:
    """Judge many screens of a design by each of its tasks, by single wells, and by what must fail."""
    values: dict[str, list[PAndQ]] = {}
    for run in range(runs):
        screen = null_screen(design, run, null_size=null_size)
        for name, found in judged(design, screen):
            values.setdefault(name, []).append(found)
    return {name: Calibration.of(found) for name, found in values.items()}


def judged(design: Design, screen: Screen) -> Iterator[tuple[str, PAndQ]]:
    """Give the p- and q-values of each task, and of what the design asks for beside them, by name."""
    for task in design.tasks:
        result = TASKS[task](screen)
        if "reason" not in result.metrics:
            yield task, p_and_q(result)
            if design.has_single_wells:
                yield f"{task}, one well", single_wells(screen, result)
    if design.broken:
        yield f"broken: {design.broken}", BROKEN[design.broken](screen)


def p_and_q(result: TaskResult) -> PAndQ:
    tested = result.rows.filter(pl.col("p").is_not_null())
    return tested["p"].to_numpy(), tested["q"].to_numpy()


def single_wells(screen: Screen, result: TaskResult) -> PAndQ:
    """P-value of one well of each perturbation, its steps smoothed at random: uniform, if the null is right.

    Where several rank lists have the observed average precision, p takes any place among them with equal chance;
    a sampled null counts the observed list as one of its own.
    """
    nulls = NullDistributions(null_size=screen.settings.null_size, seed=screen.settings.seed)
    queries = result.tables["wells" if "wells" in result.tables else "perturbations"]
    wells = queries.group_by(result.rows.columns[0], maintain_order=True).first()
    places = generator_for(screen.settings.seed, "places", result.task).random(wells.height)
    p = np.empty(wells.height)
    for row, (ap, positives, total) in enumerate(wells.select("ap", "positives", "total").iter_rows()):
        null = nulls.of(positives, total)
        above, from_here = (int(np.count_nonzero(null > ap + slack)) for slack in (1e-9, -1e-9))
        own = int(null.size < math.comb(total, positives))
        p[row] = (above + places[row] * (from_here - above + own)) / (null.size + own)
    return p, benjamini_hochberg(p)


def saw_controls(screen: Screen) -> PAndQ:
    """Activity in the space that was fitted to all controls: they lie around its centre, and all else seems active."""
    scores = score_queries([Space.whole(screen.normalized.features)], replicates(screen.wells, "activity"))
    nulls = NullDistributions(null_size=screen.settings.null_size, seed=screen.settings.seed)
    return p_and_q(
        TaskResult("activity", {}, {"": perturbations_table(wells_table(screen.raw, scores), nulls)})
    )


def best_well(screen: Screen) -> PAndQ:
    """Activity by the best well of each perturbation, as if it had been the only one."""
    wells = TASKS["activity"](screen).tables["wells"]
    best = wells.sort("ap", descending=True).group_by("Metadata_Perturbation", maintain_order=True).first()
    nulls = NullDistributions(null_size=screen.settings.null_size, seed=screen.settings.seed)
    return p_and_q(TaskResult("activity", {}, {"": perturbations_table(best, nulls)}))


BROKEN: Mapping[str, Judge] = {
    "a fit that saw the controls": saw_controls,
    "the best well decides": best_well,
}


def summary(found: Mapping[str, Mapping[str, Calibration]]) -> Findings:
    """Say what held, and show every number behind it."""
    cases = [
        (design, design.name, name, found[design.name][name])
        for design in DESIGNS
        for name in found[design.name]
    ]
    tasks = [case for case in cases if case[2] in TASKS]
    honest = [case for case in tasks if case[0].is_null]
    single = {
        task: Calibration.together([one for *_, name, one in cases if name == f"{task}, one well"])
        for task in RETRIEVAL
    }
    broken = [case for case in cases if case[2].startswith("broken")]
    return Findings(
        "calibration",
        tables=[
            Table(
                "P-values of perturbations and labels, as reported",
                COLUMNS,
                [row(*case[1:]) for case in honest],
                [HOW_TO_READ],
            ),
            conservative(honest),
            Table(
                "P-values of single wells, steps smoothed: uniform",
                ("task", "p-values", "largest distance", "95 % limit"),
                [[task, one.size, one.distance(), one.distance_limit()] for task, one in single.items()],
            ),
            Table(
                "What must fail, and where the null itself is false",
                COLUMNS,
                [row(*case[1:]) for case in broken + [case for case in tasks if not case[0].is_null]],
            ),
        ],
        goals=[
            at_most(
                f"P(p <= a) - a at any a <= {SMALL:g}, upper 95 % limit of the worst case",
                max(one.excess_limit() for *_, one in honest),
                EXCESS_BOUND,
            ),
            at_most(
                "share of groups with q < 0.05, worst case",
                max(float(one.calls.mean()) for *_, one in honest),
                FALSE_CALLS,
            ),
            at_most(
                "runs that call anything at q < 0.05, all cases together",
                float(np.mean([one.calls > 0 for *_, one in honest])),
                FALSE_CALLS,
            ),
            at_most(
                "p of a single well, distance from uniform at any level, upper 95 % limit of the worst case",
                max(one.distance_limit() for one in single.values()),
                UNIFORM_BOUND,
            ),
            at_least(
                f"broken controls: P(p <= a) - a at some a <= {SMALL:g}, the least broken",
                min(one.excess() for *_, one in broken),
                2 * EXCESS_BOUND,
            ),
        ],
    )


COLUMNS = ("design", "task", "groups", "p <= 0.01", "p <= 0.05", "p <= 0.1", "excess up to 0.05", "its 95 % limit",
           "excess anywhere", "at level", "q < 0.05", "runs with calls", "95 % interval")  # fmt: skip
HOW_TO_READ = (
    "`excess`: largest P(p <= a) - a. Groups of several queries are compared with a null in which their queries rise "
    "and fall together, which spreads it more than the truth: small p-values come out too large, and middling ones "
    "too small. So p is safe where decisions are taken, and is not to be read as uniform above."
)


def row(design: str, name: str, one: Calibration) -> list[Cell]:
    low, high = one.calls_interval()
    worst = int((one.share - LEVELS).argmax())
    return [
        design, name, one.groups, one.at(0.01), one.at(0.05), one.at(0.1), one.excess(), one.excess_limit(),
        one.excess(up_to=1.0), float(LEVELS[worst]), float(one.calls.mean()),
        f"{one.runs_with_calls} of {len(one.calls)}", f"{low:.3f} to {high:.3f}",
    ]  # fmt: skip


def conservative(cases: list[tuple[Design, str, str, Calibration]]) -> Table:
    """How much rarer than 5 % a p of 0.05 is, by task and number of replicates."""
    rows: list[list[Cell]] = []
    for design, _, name, one in cases:
        if len(set(design.replicates)) == 1 and design.normalize == "none" and not design.plate_shift:
            rows.append([name, design.replicates[0], design.name, one.at(0.05) / 0.05, one.at(0.01) / 0.01])
    rows.sort(key=lambda cells: (str(cells[0]), str(cells[1]).zfill(3)))
    columns = ("task", "replicates", "design", "P(p <= 0.05) / 0.05", "P(p <= 0.01) / 0.01")
    return Table("How conservative: 1 is exact, 0 is never", columns, rows)


def heading(runs: int, null_size: int) -> str:
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"""# Calibration of p-values

`{" ".join(["python -m benchmarks.calibration", *sys.argv[1:]])}` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, load
{load} (1, 5, 15 min), Python {platform.python_version()}. {runs} runs of each design; {null_size:,} random rank lists behind each p-value
where they cannot all be counted. Profiles are noise and labels are random, so every call is false.

What holds, and what does not:

- **Decisions are safe.** Up to a level of {SMALL:g}, and q is never smaller than p, a p-value is at most a level a with a chance
  of at most a + {EXCESS_BOUND:g}, whatever the task, the number of replicates, the layout, the correlation of features or the normalisation.
- **They are conservative**, the more so the more replicates a perturbation has: the null takes a perturbation's wells to rise
  and fall together to the full, and in truth they do so in part. Cross-plate retrieval with two to four replicates is nearly exact.
- **They are not uniform.** Above the levels at which anything is decided p-values crowd: with twelve replicates about nine
  in ten lie below 0.7. Do not estimate the share of true nulls from their histogram, nor read a large p-value as evidence.
- **p-values of single wells are uniform**, so the null of a single rank list is right.
- **The null is that controls and treated wells are alike but for the labels.** Where all controls share what no treated well
  has, as when they fill columns at the edge, activity is no longer calibrated (last table): no p-value can know that."""


if __name__ == "__main__":
    main()
