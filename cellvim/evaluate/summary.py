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
                lines += probe_lines(metrics) if task == "probe" else [retrieval_line(task, metrics)]
        return "\n".join([*lines, f"report: {self.report}"])


def retrieval_line(task: str, metrics: dict[str, Any]) -> str:
    if "reason" in metrics:
        return f"  {task}: not done, {metrics['reason']}"
    strength, share = estimate(metrics["mean_map"]), estimate(metrics["fraction_significant"])
    return (
        f"  {task}: mean mAP {strength}, chance {metrics['chance_map']:.3f}; "
        f"{share.value:.0%} of {metrics['perturbations']} perturbations with q < 0.05"
    )


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
