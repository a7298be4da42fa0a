"""What an evaluation found, short enough for a terminal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvim.evaluate.comparison import FEWEST_UNITS
from cellvim.statistics import Estimate

Metrics = Mapping[str, Any]
MOST_DIFFERENCES = 6


@dataclass(frozen=True)
class EvaluateSummary:
    """Result of `cellvim evaluate`.

    Args:
        out: Output folder.
        report: The page to open.
        metrics: Content of metrics.json.
    """

    out: Path
    report: Path
    metrics: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The form of `--json`."""
        return {"out": str(self.out), "report": str(self.report), **self.metrics}

    def __str__(self) -> str:
        lines = []
        for table in self.metrics["tables"]:
            lines.append(
                f"{table['name']}: {table['wells']} wells on {table['plates']} plate(s), "
                f"{table['negative_controls']} negative controls, {table['features_used']} features"
            )
            for task, metrics in table["tasks"].items():
                lines += task_lines(task, metrics)
        lines += comparison_lines(self.metrics.get("comparison") or [])
        lines += choice_lines(self.metrics.get("choice") or {})
        return "\n".join([*lines, f"report: {self.report}"])


def task_lines(task: str, metrics: Metrics) -> list[str]:
    """What is worth a line of the terminal; the report has the rest."""
    if "reason" in metrics:
        return [f"  {task}: not done, {metrics['reason']}"]
    lines = LINES.get(task)
    if lines is not None:
        return lines(task, metrics)
    return [retrieval_line(task, metrics)] if "mean_map" in metrics else [measures_line(task, metrics)]


def retrieval_line(task: str, metrics: Metrics) -> str:
    strength, share = estimate(metrics["mean_map"]), estimate(metrics["fraction_significant"])
    what = "labels" if "labels" in metrics else "perturbations"
    is_beyond = share.value == 0 and metrics.get("beyond_reach_alone", 0) == metrics[what]
    reach = f"; alone, none could reach it (p at best {metrics['smallest_p']:.2g})" if is_beyond else ""
    return (
        f"  {task}: mean mAP {strength}, chance {metrics['chance_map']:.3f}; "
        f"{share.value:.0%} of {metrics[what]} {what} with q < 0.05{reach}"
    )


def measures_line(task: str, metrics: Metrics) -> str:
    """Every measure with an interval."""
    measures = [f"{name} {estimate(value)}" for name, value in metrics.items() if is_estimate(value)]
    return f"  {task}: {', '.join(measures) or 'done'}"


def nearest_lines(task: str, metrics: Metrics) -> list[str]:
    """How often the nearest neighbour shares the label, beside what luck gives."""
    return [
        (
            f"  {task}: nearest neighbour shares the label for {estimate(metrics['accuracy'])} of {metrics['queries']} "
            f"queries, chance {metrics['chance']:.3f}, shuffled labels {metrics['shuffled']:.3f}"
        )
    ]


def replicating_lines(task: str, metrics: Metrics) -> list[str]:
    share = percent(estimate(metrics["fraction_replicating"]))
    return [
        f"  {task}: {share} of {metrics['perturbations']} perturbations, {metrics['chance']:.0%} by chance"
    ]


def recall_lines(task: str, metrics: Metrics) -> list[str]:
    share = percent(estimate(metrics["recall"]))
    return [
        f"  {task}: {share} of {metrics['pairs']} known pairs in the tails, {metrics['chance']:.0%} by chance"
    ]


def batch_lines(task: str, metrics: Metrics) -> list[str]:
    """What is told apart better, batches or perturbations."""
    measures = [
        f"{words} {estimate(metrics[name])}"
        + (f" (chance {metrics[chance]:.3f})" if chance in metrics else "")
        for name, words, chance in BATCH_MEASURES
        if name in metrics
    ]
    return [f"  {task}: {'; '.join(measures)}"] if measures else [measures_line(task, metrics)]


BATCH_MEASURES = (
    ("nearest_batch_accuracy", "nearest neighbour of the same batch", "chance"),
    ("nearest_perturbation_accuracy", "of the same perturbation", "chance_of_perturbation"),
    ("variance_explained_by_batch", "variance explained by batch", "variance_explained_by_chance"),
    (
        "variance_explained_by_perturbation",
        "by perturbation",
        "variance_explained_by_shuffled_perturbations",
    ),
)


def dose_lines(task: str, metrics: Metrics) -> list[str]:
    """How many compounds follow the dose, and a few lowest active doses."""
    line = f"  {task}: axis to {metrics['axis']}; {metrics['compounds_tested']} compounds tested for a trend"
    if "fraction_significant" in metrics:
        share = estimate(metrics["fraction_significant"])
        line += f", {share.value:.0%} with q < 0.05 (p can reach {metrics['smallest_p']:.2g})"
    lines = [line]
    if metrics["leading"]:
        lines.append(f"  {task}: clearest {', '.join(map(half_effect, metrics['leading']))}")
    if "mean_z_prime" in metrics:
        lines.append(f"  {task}: Z' of the controls {estimate(metrics['mean_z_prime'])}")
    if not metrics["doses_tested"]:
        return [*lines, f"  {task}: no dose has two wells, so none can be called active on its own"]
    named = [
        f"{each['compound']} from {each['lowest_active_dose']:g} {each['unit'] or ''}".strip()
        for each in metrics["active"]
    ]
    found = (
        f"  {task}: {metrics['doses_active']} of {metrics['doses_tested']} single doses active with q < 0.05"
    )
    found += f" (p can reach {metrics['smallest_p_of_doses']:.2g})"
    return [*lines, found + (f": {', '.join(named)}" if named else "")]


def half_effect(compound: Metrics) -> str:
    """Name a compound, with the dose of half its effect where the wells say so."""
    if compound["ec50"] is None:
        return str(compound["compound"])
    return (
        f"{compound['compound']} (half of its effect at {compound['ec50']:.3g} {compound['unit'] or ''}".rstrip()
        + ")"
    )


def probe_lines(task: str, metrics: Metrics) -> list[str]:
    lines = []
    for split, scores in metrics.items():
        if not isinstance(scores, dict):
            continue
        if "reason" in scores:
            lines.append(f"  {task}, {split}: not done, {scores['reason']}")
        elif "accuracy" in scores:
            line = f"  {task}, {split}: accuracy {estimate(scores['accuracy'])}"
            if "shuffled" in scores:
                line += f", shuffled labels {estimate(scores['shuffled']['accuracy']).value:.3f}"
            lines.append(line)
    return lines


LINES: Mapping[str, Callable[[str, Metrics], list[str]]] = {
    "nsc": nearest_lines,
    "nscb": nearest_lines,
    "percent_replicating": replicating_lines,
    "recall": recall_lines,
    "dose": dose_lines,
    "probe": probe_lines,
    "batch": batch_lines,
}


def comparison_lines(differences: Sequence[Metrics]) -> list[str]:
    """How tables differ in what both have judged, the certain differences first, a few of each."""
    lines = []
    for entry in differences:
        found = estimate(entry["difference"])
        is_certain = found.low is not None and found.high is not None and (found.low > 0 or found.high < 0)
        is_certain &= entry.get("units", FEWEST_UNITS) >= FEWEST_UNITS
        lines.append(
            (not is_certain, f"  {entry['table']} - {entry['against']}, {entry['task']} {entry['metric']}: {found}, "
             f"{entry['shared']} shared" + ("" if is_certain else "; may be chance"))
        )  # fmt: skip
    lines.sort(key=lambda line: line[0])
    more = len(lines) - MOST_DIFFERENCES
    shown = ["differences:"] + [line for _, line in lines[:MOST_DIFFERENCES]] if lines else []
    return shown + ([f"  and {more} more in metrics.json"] if more > 0 else [])


def choice_lines(choice: Metrics) -> list[str]:
    """Which table was chosen, and how good a table so chosen is on perturbations that had no say in it."""
    if "chosen" not in choice:
        return [f"choice: not made, {choice['reason']}"] if "reason" in choice else []
    return [
        (
            f"choice: {choice['chosen']} by {choice['task']}; a table so chosen has mean normalised mAP "
            f"{estimate(choice['estimate'])} on perturbations that had no say ({choice['naive']:.3f} on those that had)"
        )
    ]


def is_estimate(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("value"), int | float)


def percent(share: Estimate) -> str:
    """``67% (55% to 78%)``."""
    if share.low is None or share.high is None:
        return f"{share.value:.0%}"
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def estimate(metric: float | dict[str, float]) -> Estimate:
    if isinstance(metric, dict):
        return Estimate(metric["value"], metric.get("low"), metric.get("high"))
    return Estimate(metric)
