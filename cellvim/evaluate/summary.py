"""What an evaluation found, short enough for a terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvim.statistics import Estimate


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
        return "\n".join([*lines, f"report: {self.report}"])


def task_lines(task: str, metrics: dict[str, Any]) -> list[str]:
    """What is worth a line of the terminal; the report has the rest."""
    if "reason" in metrics:
        return [f"  {task}: not done, {metrics['reason']}"]
    if task == "probe":
        return probe_lines(metrics)
    if task == "dose":
        return dose_lines(metrics)
    return [retrieval_line(task, metrics)] if "mean_map" in metrics else [measures_line(task, metrics)]


def retrieval_line(task: str, metrics: dict[str, Any]) -> str:
    strength, share = estimate(metrics["mean_map"]), estimate(metrics["fraction_significant"])
    return (
        f"  {task}: mean mAP {strength}, chance {metrics['chance_map']:.3f}; "
        f"{share.value:.0%} of {metrics['perturbations']} perturbations with q < 0.05"
    )


def measures_line(task: str, metrics: dict[str, Any]) -> str:
    """Every measure with an interval."""
    measures = [
        f"{name} {estimate(value)}"
        for name, value in metrics.items()
        if isinstance(value, dict) and isinstance(value.get("value"), int | float)
    ]
    return f"  {task}: {', '.join(measures)}"


def dose_lines(metrics: dict[str, Any]) -> list[str]:
    """How many compounds follow the dose, and a few lowest active doses."""
    line = f"  dose: axis to {metrics['axis']}; {metrics['compounds_tested']} compounds tested for a trend"
    if "fraction_significant" in metrics:
        share = estimate(metrics["fraction_significant"])
        line += f", {share.value:.0%} with q < 0.05 (p can reach {metrics['smallest_p']:.2g})"
    lines = [line]
    if "mean_z_prime" in metrics:
        lines.append(f"  dose: Z' of the controls {estimate(metrics['mean_z_prime'])}")
    if not metrics["doses_tested"]:
        return [*lines, "  dose: no dose has two wells, so none can be called active on its own"]
    named = [
        f"{each['compound']} from {each['lowest_active_dose']:g} {each['unit'] or ''}".strip()
        for each in metrics["active"]
    ]
    found = f"  dose: {metrics['doses_active']} of {metrics['doses_tested']} doses active"
    return [*lines, found + (f": {', '.join(named)}" if named else "")]


def probe_lines(metrics: dict[str, Any]) -> list[str]:
    lines = []
    for split, scores in metrics.items():
        if not isinstance(scores, dict):
            continue
        if "reason" in scores:
            lines.append(f"  probe, {split}: not done, {scores['reason']}")
            continue
        line = f"  probe, {split}: accuracy {estimate(scores['accuracy'])}"
        if "shuffled" in scores:
            line += f", shuffled labels {estimate(scores['shuffled']['accuracy']).value:.3f}"
        lines.append(line)
    return lines


def estimate(metric: float | dict[str, float]) -> Estimate:
    return Estimate(**metric) if isinstance(metric, dict) else Estimate(metric)
