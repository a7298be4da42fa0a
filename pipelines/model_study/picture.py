"""Every variant against the default, as a picture: one column per metric, an interval per row."""

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from cellvim.atomic import write_atomically
from pipelines.model_study.results import METRICS, Comparison, StudyResults
from pipelines.model_study.variants import DataName

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {"better": "#0072b2", "worse": "#d55e00"}
FAINT = "#8a8a8a"
TITLES = {
    "activity": "activity",
    "retrieval": "replicate retrieval\nacross plates",
    "probe": "mechanism, plates held out",
    "reconstruction": "hidden stain,\nshare explained",
    "high_doses": "high doses\namong all wells",
    "separation": "separation\nof controls",
    "trend": "trend with dose",
}


def draw_differences(results: StudyResults, data: DataName, path: Path) -> None:
    """Draw the difference of every row from the default with its 95 % interval; a metric a row lacks stays blank.

    Filled: distinguishable from the default. Open: the interval excludes 0, but would by chance in so many
    comparisons. Grey: noise.
    """
    groups = [results.references, results.against_default, results.other_readings]
    rows = list(dict.fromkeys(row for group in groups for found in group[data].values() for row in found))
    figure = Figure(figsize=(2.4 + 2.0 * len(METRICS[data]), 1.2 + 0.26 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(METRICS[data]), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, METRICS[data], strict=True):
        found = {row: comparison for group in groups for row, comparison in group[data][metric].items()}
        _draw_panel(panel, rows, found)
        panel.set_title(TITLES[metric], fontsize=9)
    panels[0].set_yticks(range(len(rows)), rows, fontsize=8)
    panels[0].invert_yaxis()
    figure.supxlabel("difference from the default, 95 % interval; right is better", fontsize=9)
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))


def _draw_panel(panel: "Axes", rows: list[str], found: dict[str, Comparison]) -> None:
    panel.axvline(0, color="black", linewidth=0.8)
    for height, row in enumerate(rows):
        if row not in found:
            continue
        difference, finding = found[row].difference, found[row].finding
        color = COLORS.get(finding.removeprefix("suggested "), FAINT)
        if difference.low is not None and difference.high is not None:
            panel.plot([difference.low, difference.high], [height, height], color=color, linewidth=1.4)
        face = color if finding in COLORS else "white"
        panel.plot(difference.value, height, "o", color=color, markerfacecolor=face, markersize=4.5)
    panel.tick_params(axis="x", labelsize=7)
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    panel.set_axisbelow(True)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)
