"""A study ends with the bytes that its commands make when they are typed one after the other."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from typer.testing import CliRunner

from cellvim.cli import app
from cellvim.study import plan_study
from cellvim.study.run import RunOptions, run_study

WELLS = [f"{row}{column:02d}" for row in "AB" for column in (1, 2, 3)]
CONTENTS = ["DMSO", "DMSO", "DMSO", "up", "up", "down"]
# They say when, where and how fast something was made, which outputs themselves must not.
RECORDS = ("run.json", "model/report.html", "identity.json", "attempts.json")


def write_study(folder: Path) -> Path:
    """Two plates of six wells, of which three are controls."""
    generator = np.random.default_rng(0)
    for plate in ("P1", "P2"):
        (folder / "images" / plate).mkdir(parents=True)
        for well in WELLS:
            pixels = generator.poisson(300, (32, 32)).astype(np.uint16)
            tifffile.imwrite(folder / "images" / plate / f"{plate}_{well}_1_DNA.tif", pixels)
    rows = [
        f"{well},{content},{'negcon' if content == 'DMSO' else ''}"
        for well, content in zip(WELLS, CONTENTS, strict=True)
    ]
    (folder / "platemap.csv").write_text("\n".join(["well,perturbation,control_type", *rows]))
    file = folder / "study.yaml"
    content = {
        "name": "two plates",
        "plates": "images/*",
        "platemap": "platemap.csv",
        "ingest": {"pattern": "{plate}_{well}_{field}_{channel}.tif"},
        "pretrain": {"steps": 0, "crops": {"crop_px": 16}, "model": {"width": 16, "depth": 1, "patch_px": 8}},
        "evaluate": {"normalize": "none", "tasks": "replicate_retrieval", "null_size": 100},
        "jobs": {"plates_per_job": 2},
    }
    file.write_text(yaml.safe_dump(content))
    return file


def hashes_of(results: Path) -> dict[str, str]:
    """File of the results to its hash, without records of how and when it was made."""
    made = [
        path for part in ("plates", "model", "profiles", "report") for path in (results / part).rglob("*")
    ]
    return {
        str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(made)
        if path.is_file() and not str(path).endswith(RECORDS)
    }


@pytest.mark.slow
def test_a_study_makes_what_its_commands_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_study(tmp_path / "study")
    shutil.copytree(file.parent, tmp_path / "by_hand")
    assert run_study(plan_study(file), RunOptions()).is_done

    monkeypatch.chdir(tmp_path / "by_hand")
    plan = plan_study(Path("study.yaml"))
    plan.results.mkdir()
    plan.write_pretrain_file()
    for _, *arguments in plan.commands():
        assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    by_hand = hashes_of(plan.results)
    assert {
        "report/report.html",
        "report/metrics.json",
        "model/model.safetensors",
        "profiles/P2.parquet",
    } <= set(by_hand)
    assert hashes_of(file.parent / "results") == by_hand
