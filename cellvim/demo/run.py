"""The demo: synthetic plates, then ingest, pretrain, embed, evaluate, then the question whether truth was found."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.atomic import read_json, write_json
from cellvim.config import DemoSettings, EmbedSettings, EvaluateSettings, IngestSettings, PretrainSettings
from cellvim.demo.phenotype import catalogue
from cellvim.demo.synthetic import SyntheticPlates, write_plates
from cellvim.embed import embed_plates
from cellvim.errors import SomeFailedError
from cellvim.evaluate import evaluate_tables
from cellvim.ingest import ingest_plates
from cellvim.pretrain import pretrain

logger = logging.getLogger(__name__)

SIGNIFICANT_P = 0.05

RECIPE: dict[str, Any] = {
    "preset": "nano",
    "steps": 250,
    "batch_size": 16,
    "model": {"position_grid": 7},
    "crops": {"crop_px": 112},
    "optimizer": {"base_learning_rate": 0.06},
}
"""Pretraining of the demo; `configs/demo.yaml` is the same, for those who look there."""


@dataclass(frozen=True)
class DemoSummary:
    """What the demo found, beside what it had put in."""

    out: Path
    report: Path
    wells: int
    embedded: int
    activity: dict[str, dict[str, float]]
    """Mean average precision and p-value of each perturbation."""
    lowest_active_map: float
    inert_map: float
    inert_p: float

    @property
    def is_truth_recovered(self) -> bool:
        """Every active perturbation stands above the inert one, which does not stand out from controls."""
        return self.lowest_active_map > self.inert_map and self.inert_p > SIGNIFICANT_P

    def as_dict(self) -> dict[str, Any]:
        paths = {"out": str(self.out), "report": str(self.report)}
        return {**asdict(self), **paths, "is_truth_recovered": self.is_truth_recovered}

    def __str__(self) -> str:
        verdict = "recovered" if self.is_truth_recovered else "NOT recovered"
        return (
            f"{self.report}  SYNTHETIC  {self.wells} wells, {self.embedded} embedded  truth {verdict}: "
            f"weakest active mAP {self.lowest_active_map:.2f}, "
            f"inert mAP {self.inert_map:.2f} (p {self.inert_p:.2f})"
        )


def run_demo(settings: DemoSettings) -> DemoSummary:
    """Draw synthetic plates, run the four stages on them, and check the report against what was put in.

    Everything lands under `settings.out`: images, plates, run, embeddings.parquet, report/report.html. Run it
    again and finished steps are kept.

    Raises:
        SomeFailedError: The report does not show what was put into the images. Everything is on disk.
    """
    out = settings.out
    logger.info("1/5 drawing %d synthetic plates in %s", settings.plates, out / "images")
    written = write_plates(out, settings)
    logger.info("2/5 ingest")
    ingest_plates(_ingest_settings(settings, written))
    logger.info("3/5 pretrain, %d steps", settings.steps)
    pretrain(pretrain_settings(settings))
    logger.info("4/5 embed")
    embedded = embed_plates(_embed_settings(settings))
    logger.info("5/5 evaluate")
    evaluate_tables(_evaluate_settings(settings))
    summary = _compare_with_truth(out, wells=_wells(written), embedded=embedded.embedded)
    write_json(written.truth, {**read_json(written.truth), "found": _found(summary)})
    if not summary.is_truth_recovered:
        found = f"the report does not show what was put into the images: {summary}"
        raise SomeFailedError(found, hint=f"everything is in {out}; look at {summary.report}")
    return summary


def pretrain_settings(settings: DemoSettings) -> PretrainSettings:
    """Build the settings of the demo's pretraining: the recipe, with paths, seed and steps filled in."""
    return PretrainSettings.checked(
        {
            **RECIPE,
            "plates": [settings.out / "plates"],
            "out": settings.out / "run",
            "steps": settings.steps,
            "seed": settings.seed,
            "device": settings.device,
            "overwrite": settings.overwrite,
            "is_synthetic": True,
        }
    )


def _ingest_settings(settings: DemoSettings, written: SyntheticPlates) -> IngestSettings:
    return IngestSettings(
        sources=tuple(written.images / layout.name for layout in written.layouts),
        out=settings.out / "plates",
        platemap=written.platemap,
        overwrite=settings.overwrite,
    )


def _embed_settings(settings: DemoSettings) -> EmbedSettings:
    return EmbedSettings(
        plates=(settings.out / "plates",),
        model=settings.out / "run",
        out=settings.out / "embeddings.parquet",
        device=settings.device,
        overwrite=settings.overwrite,
    )


def _evaluate_settings(settings: DemoSettings) -> EvaluateSettings:
    return EvaluateSettings(
        tables=(settings.out / "embeddings.parquet",),
        out=settings.out / "report",
        label="Metadata_Mechanism",
        seed=settings.seed,
        title="cellvim demo: synthetic plates",
        is_synthetic=True,
        overwrite=settings.overwrite,
    )


def _wells(written: SyntheticPlates) -> int:
    return sum(len(layout.wells) for layout in written.layouts)


def _compare_with_truth(out: Path, *, wells: int, embedded: int) -> DemoSummary:
    table = pl.read_parquet(out / "report" / "activity.parquet")
    activity = {
        row["Metadata_Perturbation"]: {"map": row["map"], "p": row["p"]}
        for row in table.iter_rows(named=True)
    }
    active = [
        activity[perturbation.name]["map"]
        for perturbation in catalogue()
        if perturbation.kind in {"active", "toxic"}
    ]
    return DemoSummary(
        out=out,
        report=out / "report" / "report.html",
        wells=wells,
        embedded=embedded,
        activity=activity,
        lowest_active_map=min(active),
        inert_map=activity["inert"]["map"],
        inert_p=activity["inert"]["p"],
    )


def _found(summary: DemoSummary) -> dict[str, Any]:
    """What goes into truth.json: no paths, so that the same demo writes the same bytes anywhere."""
    content = summary.as_dict()
    return {key: value for key, value in content.items() if key not in ("out", "report")}
