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
    """Run the ingest commands of a study, as its plan spells them, from the study's folder."""
    planned = plan(study)
    with chdir(study.parent):
        for name, steps in planned["plates"].items():
            command = shlex.split(steps["ingest"])
            assert command[:2] == ["cellvim", "ingest"]
            result = CliRunner().invoke(app, [*command[1:], "--workers", "1"])
            assert result.exit_code == 0, (name, result.output, result.exception)
    folders = [study.parent / planned["out"] / "plates" / name for name in planned["plates"]]
    plates = [PlateReader(path) for path in find_plates(folders)]
    return {plate.name: plate for plate in plates}


def wells_of(plate: PlateReader) -> dict[str, dict[str, Any]]:
    """Rows of a plate's own plate map by well."""
    assert isinstance(plate.platemap, pl.DataFrame)
    return {row["Metadata_Well"]: row for row in plate.platemap.iter_rows(named=True)}
