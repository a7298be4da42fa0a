"""The demo that `make demo` made: the truth comes out, and chance stays chance. Run by `make truth`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.atomic import read_json
from cellvim.config import EvaluateSettings
from cellvim.demo.phenotype import catalogue
from cellvim.evaluate import evaluate_tables

pytestmark = [pytest.mark.truth, pytest.mark.timeout(900)]

SHUFFLES = 5
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo() -> Path:
    """The README's demo, default settings; the command makes what of it is not there yet."""
    folder = ROOT / "demo"
    ended = subprocess.run(
        [sys.executable, "-m", "cellvim", "demo", "--out", str(folder), "--json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["is_truth_recovered"]
    return folder


def test_every_active_perturbation_stands_above_the_inert_one(demo: Path) -> None:
    activity = pl.read_parquet(demo / "report" / "activity.parquet")
    found = {row["Metadata_Perturbation"]: row for row in activity.iter_rows(named=True)}
    kinds = {perturbation.name: perturbation.kind for perturbation in catalogue()}
    assert found.keys() == {name for name, kind in kinds.items() if kind != "control"}
    inert = found.pop("inert")
    assert inert["p"] > 0.05
    assert all(row["map"] > inert["map"] for row in found.values())


def test_every_well_is_accounted_for(demo: Path) -> None:
    record = read_json(demo / "embeddings.run.json")["counts"]
    assert record["wells"] == record["embedded"] + record["failed"] + record["skipped"]
    assert pl.read_parquet(demo / "embeddings.parquet").height == record["embedded"]


def test_shuffled_labels_are_at_chance(demo: Path, tmp_path: Path) -> None:
    table = pl.read_parquet(demo / "embeddings.parquet")
    paths = [tmp_path / f"shuffled-{number}.parquet" for number in range(SHUFFLES)]
    for number, path in enumerate(paths):
        shuffle_within_plates(table, seed=number).write_parquet(path)
    settings: dict[str, Any] = {"tables": paths, "out": tmp_path / "report", "tasks": ("activity",)}
    evaluate_tables(EvaluateSettings.checked(settings))
    metrics = read_json(tmp_path / "report" / "metrics.json")
    shares = []
    for found in metrics["tables"]:
        share = found["tasks"]["activity"]["fraction_significant"]
        shares.append(share["value"] if isinstance(share, dict) else share)
    assert len(shares) == SHUFFLES
    assert np.mean(shares) <= 0.05


def shuffle_within_plates(table: pl.DataFrame, *, seed: int) -> pl.DataFrame:
    """Deal the wells of each plate new labels; features stay where they are."""
    labels = [
        name
        for name in table.columns
        if name.startswith("Metadata_") and name not in {"Metadata_Plate", "Metadata_Well"}
    ]
    dealt = []
    for number, plate in enumerate(table.partition_by("Metadata_Plate", maintain_order=True)):
        order = np.random.default_rng((seed, number)).permutation(plate.height)
        dealt.append(plate.with_columns(plate.select(labels)[order]))
    return pl.concat(dealt)
