"""Folders with the names and columns of published data sets, in a few wells of small drawn images; and their ingest."""

import csv
import shlex
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tifffile
from typer.testing import CliRunner

from cellvim.cli import app
from cellvim.config import EvaluateSettings
from cellvim.evaluate.stage import evaluate_table
from cellvim.store import PlateReader, find_plates
from cellvim.study import plan_study

SIDE_PX = 48


def columns(head: str) -> list[str]:
    """Split the first line of a published table."""
    return head.split(",")


def write_rows(
    path: Path, head: Sequence[str], rows: Sequence[Mapping[str, Any]], *, separator: str = ","
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, head, delimiter=separator, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(path: Path, *, seed: int, dtype: type = np.uint16) -> None:
    """Write an image of noise, brighter with the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, noise(seed, dtype))


def noise(seed: int, dtype: type = np.uint16) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.integers(20, 60, (SIDE_PX, SIDE_PX)) + seed % 100).astype(dtype)


def plan(study: Path) -> dict[str, Any]:
    """What `cellvim study plan` shows."""
    result = CliRunner().invoke(app, ["study", "plan", str(study)])
    assert result.exit_code == 0, result.output
    return plan_study(study).as_dict()


def ingest(study: Path) -> dict[str, PlateReader]:
    """Run the ingest commands of a study; the plates by their names."""
    planned = plan(study)
    for steps in planned["plates"].values():
        run(study, steps["ingest"], "--workers", "1")
    folders = [study.parent / planned["out"] / "plates" / name for name in planned["plates"]]
    plates = [PlateReader(path) for path in find_plates(folders)]
    return {plate.name: plate for plate in plates}


def run(study: Path, command: str, *more: str) -> None:
    """Run a command as the plan of a study spells it, in the study's folder."""
    program, *arguments = shlex.split(command)
    assert program == "cellvim"
    with chdir(study.parent):
        result = CliRunner().invoke(app, [*arguments, *more])
    assert result.exit_code == 0, (command, result.output, result.exception)


def evaluated(study: Path, tables: Path) -> dict[str, Any]:
    """Metrics of the tasks that a study asks for, with few resamples, and without the page."""
    asked = plan_study(study).settings.evaluate
    settings = {
        **asked,
        "tables": (tables,),
        "out": tables.parent / "report",
        "tasks": tuple(asked["tasks"].split(",")),
    }
    return evaluate_table(
        "study", tables, EvaluateSettings(**settings, null_size=100, bootstraps=20)
    ).metrics["tasks"]


def wells_of(plate: PlateReader) -> dict[str, dict[str, Any]]:
    """Rows of a plate's own plate map by well."""
    assert isinstance(plate.platemap, pl.DataFrame)
    return {row["Metadata_Well"]: row for row in plate.platemap.iter_rows(named=True)}
