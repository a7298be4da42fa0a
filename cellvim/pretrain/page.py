"""RUN/report.html: a pretraining run on one page, without any request to elsewhere."""

import base64
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from cellvim.atomic import write_text
from cellvim.dataset.splits import LEAKY
from cellvim.pretrain.holdout import shown_splits


def write_run_report(out: Path, summary: dict[str, Any], record: dict[str, Any], *, title: str) -> None:
    """Write the page beside the weights.

    Args:
        out: Run folder that already holds the pictures.
        summary: `PretrainSummary.as_dict()`.
        record: Content of `run.json`.
        title: What was trained.
    """
    environment = Environment(
        loader=PackageLoader("cellvim.pretrain"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("run.html.j2").render(
        title=title,
        summary=summary,
        record=record,
        settings=yaml.safe_dump(record["settings"], sort_keys=False),
        loss=_as_data_url(out / "loss.png"),
        reconstructions=_as_data_url(out / "reconstructions.png"),
        holdout=shown_splits(summary["holdout"]) if summary["holdout"] else None,
        leaky=LEAKY,
    )
    write_text(out / "report.html", page)


def _as_data_url(path: Path) -> str | None:
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
