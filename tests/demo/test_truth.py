"""The demo as a newcomer runs it: the truth comes out, chance stays chance, and a second run is the same bytes."""

import hashlib
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHUFFLES = 5
COMPARED = (
    "run/model.safetensors",
    "run/metrics.jsonl",
    "embeddings.parquet",
    "report/metrics.json",
    "truth.json",
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two demos of default settings, run side by side by the command itself, one thread each."""
    folders = tmp_path_factory.mktemp("first") / "demo", tmp_path_factory.mktemp("second") / "demo"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "cellvim", "demo", "--out", str(folder), "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in folders
    ]
    for process, folder in zip(running, folders, strict=True):
        out, log = process.communicate()
        assert process.returncode == 0, log
        assert json.loads(out)["is_truth_recovered"]
        assert folder.is_dir()
    return folders


def test_every_active_perturbation_stands_above_the_inert_one(demos: tuple[Path, Path]) -> None:
    activity = pl.read_parquet(demos[0] / "report" / "activity.parquet")
    found = {row["Metadata_Perturbation"]: row for row in activity.iter_rows(named=True)}
    kinds = {perturbation.name: perturbation.kind for perturbation in catalogue()}
    assert found.keys() == {name for name, kind in kinds.items() if kind != "control"}
    inert = found.pop("inert")
    assert inert["p"] > 0.05
    assert all(row["map"] > inert["map"] for row in found.values())


def test_every_well_is_accounted_for(demos: tuple[Path, Path]) -> None:
    record = read_json(demos[0] / "embeddings.run.json")["counts"]
    assert record["wells"] == record["embedded"] + record["failed"] + record["skipped"]
    assert pl.read_parquet(demos[0] / "embeddings.parquet").height == record["embedded"]


def test_second_run_is_the_same_bytes(demos: tuple[Path, Path]) -> None:
    tables = [str(path.relative_to(demos[0])) for path in sorted((demos[0] / "report").glob("*.parquet"))]
    assert tables
    for name in (*COMPARED, *tables, "report/report.html"):
        first, second = (hashlib.sha256((demo / name).read_bytes()).hexdigest() for demo in demos)
        assert first == second, name


def test_shuffled_labels_are_at_chance(demos: tuple[Path, Path], tmp_path: Path) -> None:
    table = pl.read_parquet(demos[0] / "embeddings.parquet")
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
