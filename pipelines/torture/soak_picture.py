"""Draw what a process held after each plate."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cellvim.atomic import write_bytes
from pipelines.torture.soak_process import Sample


def draw_soak(samples: Sequence[Sample], warm: int, path: Path) -> None:
    """Draw memory above, open files and threads below; the warm-up is shaded."""
    minutes = np.array([one.seconds for one in samples]) / 60
    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    memory, counts = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for kind, marker in zip(dict.fromkeys(one.kind for one in samples), "os^", strict=False):
        own = np.array([one.kind == kind for one in samples])
        values = np.array([one.resident_bytes for one in samples])[own] / 2**20
        memory.plot(minutes[own], values, marker, markersize=3, linestyle="", label=f"after {kind} plates")
    counts.plot(minutes, [one.handles for one in samples], label="open files", drawstyle="steps-post")
    counts.plot(minutes, [one.threads for one in samples], label="threads", drawstyle="steps-post")
    for axes, label in ((memory, "memory, MiB"), (counts, "count")):
        axes.axvspan(0, minutes[warm - 1], color="0.92", zorder=0)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        axes.legend(loc="lower right", fontsize=8, frameon=False, ncols=3)
        axes.spines[["top", "right"]].set_visible(False)
    counts.set_xlabel("minutes (shaded: warm-up, not judged)")
    file = io.BytesIO()
    # Without the version of the library, the same samples give the same bytes.
    figure.savefig(file, format="png", metadata={"Software": None})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, file.getvalue())
