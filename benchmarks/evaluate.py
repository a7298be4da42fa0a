"""Retrieval beside copairs, sphering beside pycytominer, and how time and memory grow with the number of plates.

    python -m benchmarks.evaluate [--rounds 3] [--docs docs/evaluate_speed.md] [--quick]

Both are asked the same questions of the same random profiles in one process, in turns, and answer with an average
precision per query, its mean per group, p and q. Growth is ours alone, a process per task and size.
"""

import argparse
import os
import platform
import statistics
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import altair as alt
import polars as pl

from benchmarks.evaluate_cases import NULL_SIZE, Case, make_cases
from benchmarks.findings import Cell, Findings, Goal, Table, as_markdown, at_least, at_most, publish, save
from benchmarks.processes import CommandFailedError, run_watched
from cellvim.provenance import package_versions

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path("images") / "evaluate_growth.svg"
PACKAGES = ("numpy", "polars", "copairs", "pandas", "pycytominer", "scipy")
TIMES_FASTER = {
    "replicate retrieval": 20,
    "well-level mechanism": 10,
    "activity": 10,
    "multilabel consistency": 20,
}
OWN_TURNS = 3
"""Our turns for each of theirs, which take longer."""
SAME = 1e-6
MOST_MIB = 2048
MOST_SPHERING_S = 10
SIZES = (1, 3, 10, 30, 100)
PEER_SIZES = (1, 3, 10)
"""Plates that pycytominer spheres."""
GROWING = ("replicate_retrieval", "mechanism_of_wells", "activity", "consistency", "sphering")
SPHERING = {"sphering_all": "cellvim", "sphering_by_pycytominer": "pycytominer Spherize, ZCA-cor"}


@dataclass(frozen=True)
class Size:
    """Wells per plate, features, plates of the comparison, and plates of the growth."""

    wells: int
    features: int
    plates: int
    growth: tuple[int, ...]
    peer: tuple[int, ...]


FULL = Size(384, 384, 10, SIZES, PEER_SIZES)
QUICK = Size(96, 48, 3, (1, 2), (6,))


@dataclass(frozen=True)
class Grown:
    """What one task took on so many plates; NaN where it failed."""

    what: str
    plates: int
    wells: int
    seconds: float
    peak_mib: float
    before_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "evaluate", help="receives evaluate.json")
    parser.add_argument("--docs", type=Path, help="write the page there, and its picture beside it")
    parser.add_argument("--skip-copairs", action="store_true", help="growth and sphering only")
    parser.add_argument("--quick", action="store_true", help="one round of small tables: shows that it runs")
    arguments = parser.parse_args()
    size, rounds = (QUICK, 1) if arguments.quick else (FULL, arguments.rounds)
    head = heading(size, rounds)
    findings = Findings("evaluate")
    started = time.perf_counter()
    if not arguments.skip_copairs:
        cases = compare(size, rounds)
        findings.tables += [speed_table(cases), difference_table(cases)]
        findings.goals += [*speed_goals(cases), *difference_goals(cases)]
    grown = [grow(what, plates, size) for what in GROWING for plates in size.growth]
    spheres = [grow(what, plates, size) for what in SPHERING for plates in size.peer]
    findings.tables += [growth_table(grown), sphering_table(spheres)]
    findings.goals += growth_goals(grown, max(size.growth))
    findings.seconds = time.perf_counter() - started
    page_folder = arguments.docs.parent if arguments.docs else arguments.out
    draw(grown, page_folder / PICTURE)
    save(findings, arguments.out)
    page = as_markdown([findings], head) + f"\n![Seconds and peak memory over wells]({PICTURE.as_posix()})\n"
    publish(page, arguments.docs)


def heading(size: Size, rounds: int) -> str:
    """Say what was run where; written down before the run, so that the load is that of the others."""
    from benchmarks.cpu import processor_name  # brings torch, which nothing else here needs

    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = ", ".join(f"{name} {version}" for name, version in package_versions(PACKAGES).items())
    return f"""# Speed of evaluate

`{" ".join(["python -m benchmarks.evaluate", *sys.argv[1:]])}` on {datetime.now(tz=UTC):%Y-%m-%d}:
{processor_name()}, {os.cpu_count()} cores, {platform.system()}, {versions};
OMP_NUM_THREADS={os.environ.get("OMP_NUM_THREADS", "not set")}; load {load} (1, 5, 15 min) at the start.
Medians of {rounds} round(s), in brackets the fastest and the slowest.

Random profiles: {size.plates} plates x {size.wells} wells x {size.features} features, 32 negative controls per plate,
one well per perturbation and plate. Every time includes p-values from {NULL_SIZE:,} rank lists, made anew in every turn (copairs
would otherwise read them from its cache), and q-values. copairs uses all cores for similarities and p-values,
cellvim for products of matrices (OMP_NUM_THREADS). copairs keeps similarities in single precision, cellvim computes
in double throughout. Where queries of a label differ in their numbers of positives and negatives, copairs averages
independent null distributions and cellvim coupled ones, so that p differs by more than sampling does."""


def compare(size: Size, rounds: int) -> list[Case]:
    cases = make_cases(plates=size.plates, wells=size.wells, features=size.features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in cases:
            case.ours()
            for _ in range(rounds):
                for _ in range(OWN_TURNS):
                    case.ask("cellvim")
                case.ask("copairs")
    return cases


def speed_table(cases: list[Case]) -> Table:
    rows: list[list[Cell]] = [
        [case.name, spread(case.seconds["cellvim"]), spread(case.seconds["copairs"]), times_faster(case)]
        for case in cases
    ]
    return Table("Seconds from profiles to q-values", ("task", "cellvim", "copairs", "times faster"), rows)


def difference_table(cases: list[Case]) -> Table:
    rows: list[list[Cell]] = []
    for case in cases:
        found = case.differences()
        answer = case.answers["cellvim"]
        rows.append(
            [case.name, answer.queries.height, answer.groups.height]
            + [f"{found[name]:.1g}" for name in ("ap", "map", "p", "q")]
        )
    columns = ("task", "queries", "groups", "ap", "map", "p", "q of the same p")
    note = "p is sampled by both, and so differs by up to 0.02 where their null distributions are the same."
    return Table("Largest difference from copairs", columns, rows, [note])


def growth_table(grown: list[Grown]) -> Table:
    rows: list[list[Cell]] = [
        [one.what.replace("_", " "), one.plates, one.wells, one.seconds, one.peak_mib, one.before_mib]
        for one in grown
    ]
    columns = ("task", "plates", "wells", "s", "peak MiB", "MiB before")
    note = (
        "One process each. Peak resident memory of the whole process, with interpreter, libraries and the table; "
        "before: when the task began. Tasks as in `cellvim evaluate`, on sphered profiles, intervals included; "
        "activity with five fits of the normalisation. Replicate retrieval finds nobody on one plate."
    )
    return Table("Growth, cellvim alone", columns, rows, [note])


def sphering_table(spheres: list[Grown]) -> Table:
    rows: list[list[Cell]] = [
        [SPHERING[one.what], one.wells, one.seconds, one.peak_mib, one.before_mib] for one in spheres
    ]
    columns = ("fitted to and applied to all wells", "wells", "s", "peak MiB", "MiB before")
    return Table("Sphering beside pycytominer", columns, rows)


def grow(what: str, plates: int, size: Size) -> Grown:
    """Run one task in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.evaluate_growth", what, "--plates", str(plates)]
    command += ["--wells", str(size.wells), "--features", str(size.features)]
    wells = plates * size.wells
    try:
        outcome = run_watched(command, cwd=ROOT)
    except CommandFailedError as error:
        print(f"{what} of {plates} plates: {error}", file=sys.stderr)
        return Grown(what, plates, wells, float("nan"), float("nan"), float("nan"))
    found = outcome.found
    return Grown(what, plates, wells, found["seconds"], found["peak_mib"], found["before_mib"])


def draw(grown: list[Grown], path: Path) -> None:
    """Draw seconds and memory over wells, a line per task, and the bound of 2 GiB."""
    table = pl.DataFrame(
        [
            {"task": one.what.replace("_", " "), "wells": one.wells, "s": one.seconds, "MiB": one.peak_mib}
            for one in grown
        ]
    )
    x = alt.X("wells:Q").scale(type="log").title("wells")
    color = alt.Color("task:N").title(None)
    base = alt.Chart(table, width=300, height=240).mark_line(point=True)
    seconds = base.encode(x=x, y=alt.Y("s:Q").scale(type="log").title("seconds"), color=color)
    memory = base.encode(x=x, y=alt.Y("MiB:Q").title("peak resident memory, MiB"), color=color)
    bound = alt.Chart(pl.DataFrame({"MiB": [MOST_MIB]})).mark_rule(strokeDash=[4, 4]).encode(y="MiB:Q")
    path.parent.mkdir(parents=True, exist_ok=True)
    (seconds | (memory + bound)).save(str(path))


def speed_goals(cases: list[Case]) -> list[Goal]:
    return [
        at_least(f"{case.name}, times as fast as copairs", times_faster(case), TIMES_FASTER[case.name])
        for case in cases
    ]


def difference_goals(cases: list[Case]) -> list[Goal]:
    goals = [
        at_most(f"{case.name}, largest difference of {name} from copairs", case.differences()[name], SAME)
        for case in cases
        for name in ("ap", "map", "q")
    ]
    for case in cases:
        count, ours, theirs = case.judged(most=SAME)
        if case.exact is not None and count:
            claim = (
                f"{case.name}, the {count} queries where the two differ by more: cellvim from scikit-learn in double "
                f"precision (copairs: {theirs:.1g})"
            )
            goals.append(at_most(claim, ours, SAME))
    return goals


def growth_goals(grown: list[Grown], plates: int) -> list[Goal]:
    largest = [one for one in grown if one.plates == plates]
    memory = [
        at_most(f"{one.what}, {one.wells:,} wells, peak MiB", one.peak_mib, MOST_MIB) for one in largest
    ]
    (sphering,) = (one for one in largest if one.what == "sphering")
    claim = f"sphering, {sphering.wells:,} wells, seconds"
    return [*memory, at_most(claim, sphering.seconds, MOST_SPHERING_S)]


def times_faster(case: Case) -> float:
    return statistics.median(case.seconds["copairs"]) / statistics.median(case.seconds["cellvim"])


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
