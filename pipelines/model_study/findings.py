"""What the model study says, in words: by factor, by variant, and how much of it chance would say too."""

from collections.abc import Iterator

from pipelines.model_study.results import LEVEL, Comparison, StudyResults
from pipelines.model_study.run import LONGER
from pipelines.model_study.statistics import Difference
from pipelines.model_study.text import DECISION, DEFAULT_CHOICES, METRIC_NAMES, count
from pipelines.model_study.variants import (
    CONFIRMED,
    DEFAULT,
    INTENSITY,
    UNTRAINED,
    VARIANTS,
    DataName,
    checks_of,
    readings_without_training,
)

FEATURES = "features of the same weights"
VERDICT_WORDS = (
    "\nThe words say what the rule below found, and no more. *Questioned*: an alternative is better by some metric and "
    "worse by none. *Supported*: worse by some and better by none. *A trade*: both.\n"
)


def describe_findings(results: StudyResults, confirmed: StudyResults) -> list[str]:
    """Verdict on each default, then a line per row, then what to expect of chance and what training brings."""
    factors = _rows_by_factor()
    verdicts = [
        f"| {factor} | {DEFAULT_CHOICES[factor]} | {_verdict(results, rows)} |"
        for factor, rows in factors.items()
    ]
    lines = [f"- **{row}**: {_sentence(results, row)}" for rows in factors.values() for row in rows]
    return [
        "| factor | default | verdict |\n| --- | --- | --- |",
        *verdicts,
        VERDICT_WORDS,
        "Against the default, by the rule below:\n",
        *lines,
        "",
        *_describe_checks(results),
        *_unfinished(results),
        _chance(results),
        _training(results),
        *_describe_confirmed(confirmed),
    ]


def _describe_confirmed(confirmed: StudyResults) -> list[str]:
    rows = [row for row in CONFIRMED if any(_comparisons(confirmed, row))]
    if not rows:
        return []
    lines = [f"- **{row}**: {_sentence(confirmed, row)}" for row in rows]
    return [
        f"Trained {LONGER} times as long, on other plates and seeds, against a default trained as long:\n",
        *lines,
        "",
        *_describe_checks(confirmed),
        *_unfinished(confirmed),
        _chance(confirmed),
        _training(confirmed),
        DECISION,
    ]


def describe_first_stage(results: StudyResults) -> str:
    """Say of each row of the second stage by which metrics its mean was above the default's in the first one."""
    lines = []
    for row in CONFIRMED:
        if row in (DEFAULT, UNTRAINED):
            continue
        sides: dict[bool, list[str]] = {True: [], False: []}
        for data, metric, comparison in _comparisons(results, row):
            sides[comparison.difference.value > 0].append(f"{METRIC_NAMES[metric]} on {data}")
        ahead, behind = (", ".join(sides[side]) or "nothing" for side in (True, False))
        finished = f"mean above the default's by {ahead}; not by {behind}."
        lines.append(f"- **{row}**: {finished if any(sides.values()) else 'not finished.'}")
    return "\n".join([*lines, "", *_unfinished(results)])


def format_difference(difference: Difference, *, sign: int = 1) -> str:
    """Write a difference with its interval; turned round if `sign` is -1."""
    text = _signed(sign * difference.value)
    if difference.low is None or difference.high is None:
        return text
    low, high = sorted((sign * difference.low, sign * difference.high))
    return f"{text} ({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    is_lost_by_rounding = value != 0 and abs(value) < 0.0005
    return f"{value:+.0e}" if is_lost_by_rounding else f"{value:+.3f}"


def _rows_by_factor() -> dict[str, list[str]]:
    factors: dict[str, list[str]] = {}
    for variant in VARIANTS:
        if variant.factor:
            factors.setdefault(variant.factor, []).extend(reading.name for reading in variant.readings)
    return {**factors, FEATURES: list(readings_without_training())}


def _verdict(results: StudyResults, rows: list[str]) -> str:
    """What the rule found of the alternatives to a default, and how many metrics on how many data sets say so."""
    sides: dict[str, list[str]] = {
        "questioned": [],
        "a trade": [],
        "supported": [],
        "cannot be told apart": [],
    }
    for row in rows:
        found = [comparison.finding for _, _, comparison in _comparisons(results, row)]
        better, worse = found.count("better"), found.count("worse")
        names = {(True, False): "questioned", (True, True): "a trade", (False, True): "supported"}
        if found:
            side = names.get((better > 0, worse > 0), "cannot be told apart")
            sides[side].append(row + _support(better, worse, len(found)))
    return (
        "; ".join(f"{side}: {', '.join(named)}" for side, named in sides.items() if named) or "not finished"
    )


def _support(better: int, worse: int, compared: int) -> str:
    parts = [
        f"{side} by one metric on one data set"
        if number == 1
        else f"{side} in {number} of {compared} comparisons"
        for side, number in (("better", better), ("worse", worse))
        if number
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _comparisons(results: StudyResults, row: str) -> Iterator[tuple[DataName, str, Comparison]]:
    """Comparisons that the verdict rests on."""
    for data, metric, comparison in _all_comparisons(results, row):
        if metric not in checks_of(row):
            yield data, metric, comparison


def _all_comparisons(results: StudyResults, row: str) -> Iterator[tuple[DataName, str, Comparison]]:
    for families in (results.against_default, results.other_readings):
        for data, metrics in families.items():
            for metric, found in metrics.items():
                if row in found:
                    yield data, metric, found[row]


def _sentence(results: StudyResults, row: str) -> str:
    by_finding: dict[str, list[str]] = {}
    for data, metric, comparison in _comparisons(results, row):
        what = f"{METRIC_NAMES[metric]} on {data} {format_difference(comparison.difference)}"
        by_finding.setdefault(comparison.finding, []).append(what)
    if not by_finding:
        return "not finished."
    order = ("better", "worse", "suggested better", "suggested worse")
    parts = [f"{name} by {', '.join(by_finding[name])}" for name in order if name in by_finding]
    noise = len(by_finding.get("noise", []))
    if not parts:
        return f"no difference beyond noise in {count(noise, 'comparison')}."
    return "; ".join(parts) + (f"; noise in {noise} more." if noise else ".")


def _describe_checks(results: StudyResults) -> list[str]:
    """Show what is no part of a verdict, as it is the task that one side of the comparison trains on."""
    parts = [
        f"{row}: {METRIC_NAMES[metric]} on {data} {format_difference(comparison.difference)}"
        for variant in VARIANTS
        for row in [variant.name]
        for data, metric, comparison in _all_comparisons(results, row)
        if metric in checks_of(row)
    ]
    if not parts:
        return []
    check = (
        "Predicting a wholly hidden stain is what channel steps train, and patch steps never do. So for masking it is "
        "left out of the verdict, and only checks that the setting did what it says; minus the default: "
    )
    return [f"{check}{'; '.join(parts)}.\n"]


def _unfinished(results: StudyResults) -> list[str]:
    """Warn of intervals that know nothing of seeds, or of fewer than the study has."""
    lacking = {
        f"{name} on {data}": len(runs)
        for data, by_variant in results.runs.items()
        for name, runs in by_variant.items()
        if len(runs) < len(results.seeds) and name != INTENSITY
    }
    if not lacking:
        return []
    rows = ", ".join(f"{row} ({count})" for row, count in lacking.items())
    return [f"**Not finished**: {len(results.seeds)} seeds are planned, and these rows have fewer: {rows}.\n"]


def _chance(results: StudyResults) -> str:
    families = [
        tried
        for kinds in (results.against_default, results.other_readings)
        for metrics in kinds.values()
        for found in metrics.values()
        if (tried := [each for each in found.values() if each.difference.p is not None])
    ]
    tried = [comparison for family in families for comparison in family]
    excluding = sum(comparison.difference.excludes_zero for comparison in tried)
    kept = sum(comparison.finding in ("better", "worse") for comparison in tried)
    return (
        f"{count(len(tried), 'comparison')} with an interval, in {len(families)} families (one metric on one data set; "
        "other trainings and other features apart). If nothing differed, "
        f"about {LEVEL * len(tried):.1f} of the intervals would exclude 0; {excluding} do. {kept} are left when "
        "p-values are adjusted within each family: only those are called better or worse. Each family may still hold "
        f"a false one with a chance of up to {100 * LEVEL:.0f} %, so that up to {LEVEL * len(families):.1f} of the "
        f'{len(families)} families would be expected to. "Suggested" is an interval that excludes 0 and may be '
        "chance.\n"
    )


def _training(results: StudyResults) -> str:
    """What training itself brings, which is the scale for everything else."""
    parts = [
        f"{METRIC_NAMES[metric]} on {data} {format_difference(found[UNTRAINED].difference, sign=-1)}"
        for data, metrics in results.references.items()
        for metric, found in metrics.items()
        if UNTRAINED in found
    ]
    return (
        f"For scale, what training brings, default minus untrained: {', '.join(parts) or 'not finished'}.\n"
    )
