"""BBBC013: does a protein move into the nucleus, and does the profile follow the dose?

From the images of plate 1049 to a report, with the trained encoder beside three baselines: the same encoder
untrained, intensity statistics, and hand-made features. One command, from the root of the project:

    python -m pipelines.bbbc013 --source ../shared/data/bbbc013 --out bbbc013

Finished steps are kept: the same command goes on where it stopped.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.atomic import read_json, write_json, write_text
from cellvim.config import EmbedSettings, EvaluateSettings, IngestSettings, PretrainSettings
from cellvim.embed import embed_plates
from cellvim.evaluate import evaluate_tables
from cellvim.ingest import ingest_plates
from cellvim.pretrain import pretrain
from cellvim.store import PlateReader
from pipelines.baselines import intensity_statistics, translocation_features, write_baseline_table
from pipelines.bbbc013_doses import dose_response, paired_difference, write_shuffled_tables
from pipelines.bbbc013_page import results_page

logger = logging.getLogger(__name__)

PLATE = "1049"
PATTERN = "Channel{channel}-{}-{row}-{column}.tif"
CONFIG = Path(__file__).parents[1] / "configs" / "bbbc013.yaml"
SHUFFLES = 5


@dataclass(frozen=True)
class Study:
    """Where everything of one run of the study lies."""

    source: Path
    out: Path
    seeds: tuple[int, ...]

    @property
    def plate(self) -> Path:
        return self.out / "plates" / f"{PLATE}.ome.zarr"

    def table(self, name: str) -> Path:
        return self.out / "tables" / f"{name}.parquet"


def run_study(study: Study) -> dict[str, Any]:
    """Run every step, and write `results.json` and `results.md`.

    Returns:
        What `results.json` holds: by table, activity by dose and by compound, trend with dose, Z'-factor.
    """
    ingest_plate(study.source, study.plate.parent)
    for seed in study.seeds:
        _embed(study, _pretrain(study, seed=seed, is_trained=True), f"trained-{seed}")
        _embed(study, _pretrain(study, seed=seed, is_trained=False), f"untrained-{seed}")
    plate = PlateReader(study.plate)
    write_baseline_table(plate, intensity_statistics, study.table("intensity"))
    write_baseline_table(plate, translocation_features, study.table("handmade"))
    names = [f"trained-{study.seeds[0]}", f"untrained-{study.seeds[0]}", "intensity", "handmade"]
    more = [f"{kind}-{seed}" for seed in study.seeds[1:] for kind in ("trained", "untrained")]
    shuffled = write_shuffled_tables(study.table(names[0]), count=SHUFFLES)
    results = {
        "tables": names,
        "more_seeds": more,
        "by_dose": _evaluate(study, [*names, *more], "report", perturbation="Metadata_Perturbation"),
        "by_compound": _evaluate(
            study, [*names, *more], "report_by_compound", perturbation="Metadata_Compound"
        ),
        "shuffled": _evaluate(study, shuffled, "report_shuffled", perturbation="Metadata_Perturbation"),
        "dose_response": {name: dose_response(study.table(name)) for name in [*names, *more]},
        "differences": {folder: _differences(study, folder) for folder in ("report", "report_by_compound")},
    }
    write_json(study.out / "results.json", results)
    write_text(study.out / "results.md", results_page(results))
    return results


def ingest_plate(source: Path, out: Path) -> None:
    """Write `out/1049.ome.zarr` from the folder of images and plate map."""
    ingest_plates(
        IngestSettings(
            sources=(source / "images",),
            out=out,
            platemap=source / "platemap.csv",
            pattern=PATTERN,
            channels="1=GFP,2=DNA",
            plate=PLATE,
        )
    )


def _pretrain(study: Study, *, seed: int, is_trained: bool) -> Path:
    """Train, or write the encoder that training starts from."""
    out = study.out / "runs" / f"{'trained' if is_trained else 'untrained'}-{seed}"
    steps = {} if is_trained else {"steps": 0}
    pretrain(PretrainSettings.from_yaml(CONFIG, plates=[study.plate], out=out, seed=seed, **steps))
    return out


def _embed(study: Study, run: Path, name: str) -> None:
    embed_plates(EmbedSettings(plates=(study.plate,), model=run, out=study.table(name)))


def _evaluate(study: Study, names: Sequence[str], folder: str, *, perturbation: str) -> dict[str, Any]:
    """Evaluate several tables at once; return the metrics of each by its name, and every perturbation's mAP and p."""
    settings = EvaluateSettings(
        tables=tuple(study.table(name) for name in names),
        out=study.out / folder,
        perturbation=perturbation,
        tasks=("activity",),
        title=f"BBBC013, plate {PLATE}",
    )
    evaluate_tables(settings)
    metrics = read_json(settings.out / "metrics.json")
    return {
        "tables": {table["name"]: table["tasks"] for table in metrics["tables"]},
        "perturbations": pl.read_parquet(settings.out / "activity.parquet").to_dicts(),
    }


def _differences(study: Study, folder: str) -> dict[str, Any]:
    """Compare the trained encoders of all seeds with each baseline, on the same wells."""
    wells = pl.read_parquet(study.out / folder / "activity_wells.parquet")
    metadata = pl.read_parquet(study.table("intensity")).select("Metadata_Well", "Metadata_Perturbation")
    doses = dict(metadata.iter_rows())
    ours = [f"trained-{seed}" for seed in study.seeds]
    others = {
        "untrained": [f"untrained-{seed}" for seed in study.seeds],
        "intensity": ["intensity"],
        "handmade": ["handmade"],
    }
    return {
        name: paired_difference(wells, doses, ours=ours, theirs=theirs) for name, theirs in others.items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=Path("../shared/data/bbbc013"))
    parser.add_argument("--out", type=Path, default=Path("bbbc013"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="trainings; the first is reported")
    parser.add_argument("--docs", type=Path, help="also write the page of results here")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results = run_study(Study(given.source, given.out, tuple(given.seeds)))
    if given.docs:
        write_text(given.docs, results_page(results))


if __name__ == "__main__":
    main()
