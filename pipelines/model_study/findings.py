"""What the model study says, in words: by factor, by variant, and how much of it chance would say too."""

from collections.abc import Iterator

from pipelines.model_study.results import LEVEL, Comparison, StudyResults
from pipelines.model_study.statistics import Difference
from pipelines.model_study.text import DEFAULT_CHOICES, METRIC_NAMES
from pipelines.model_study.variants import (
    CONFIRMED,
    INTENSITY,
    UNTRAINED,
    VARIANTS,
    DataName,
    readings_without_training,
)

FEATURES = "features of the same weights"


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
        "\nAgainst the default, by the rule below:\n",
        *lines,
        "",
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
        "Trained twice as long, on other plates and seeds, against a default trained as long:\n",
        *lines,
        "",
        _training(confirmed),
    ]


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
    """Whether the alternatives to a default are distinguishably better or worse by any metric on any data."""
    sides: dict[str, list[str]] = {"better": [], "worse": [], "mixed": [], "even": []}
    for row in rows:
        found = {comparison.finding for _, _, comparison in _comparisons(results, row)}
        if found:
            is_better, is_worse = "better" in found, "worse" in found
            side = {(True, False): "better", (False, True): "worse", (True, True): "mixed"}
            sides[side.get((is_better, is_worse), "even")].append(row)
    words = {
        "better": "questioned: better by some metric and worse by none",
        "mixed": "a trade: better by some metrics, worse by others",
        "worse": "supported: worse by some metric and better by none",
        "even": "cannot be told apart",
    }
    return (
        "; ".join(f"{words[side]}: {', '.join(sides[side])}" for side in words if sides[side])
        or "not finished"
    )


def _comparisons(results: StudyResults, row: str) -> Iterator[tuple[DataName, str, Comparison]]:
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
        return f"no difference beyond noise in {noise} comparisons."
    return "; ".join(parts) + (f"; noise in {noise} more." if noise else ".")


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
    tried = [
        comparison
        for families in (results.against_default, results.other_readings)
        for metrics in families.values()
        for found in metrics.values()
        for comparison in found.values()
        if comparison.difference.p is not None
    ]
    excluding = sum(comparison.difference.excludes_zero for comparison in tried)
    kept = sum(comparison.finding in ("better", "worse") for comparison in tried)
    return (
        f"{len(tried)} comparisons were made. If nothing differed, about {LEVEL * len(tried):.0f} of their "
        f"intervals would exclude 0; {excluding} do. {kept} are left when p-values are adjusted for the number of "
        'rows: only those are called better or worse. "Suggested" is an interval that excludes 0 and may be chance.\n'
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
