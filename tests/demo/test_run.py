"""The demo's settings, its verdict, and, in small, the whole way from synthetic plates to a report."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from cellvim.atomic import read_json
from cellvim.config import DemoSettings, PretrainSettings
from cellvim.demo import DemoSummary, pretrain_settings, run, run_demo, synthetic
from cellvim.errors import SomeFailedError

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"
SMALL: dict[str, Any] = {"plates": 2, "seed": 21, "steps": 4}
COMPARED = (
    "run/model.safetensors",
    "run/metrics.jsonl",
    "embeddings.parquet",
    "report/metrics.json",
    "report/report.html",
    "truth.json",
)


def test_the_shipped_config_is_what_the_demo_uses() -> None:
    settings = pretrain_settings(DemoSettings())
    shipped = PretrainSettings.from_yaml(
        CONFIG, plates=list(settings.plates), out=settings.out, is_synthetic=True
    )
    assert shipped == settings


def test_seed_and_steps_reach_the_training() -> None:
    settings = pretrain_settings(DemoSettings(out=Path("d"), seed=3, steps=7))
    assert (settings.seed, settings.steps, settings.out) == (3, 7, Path("d/run"))


def summary(**changes: Any) -> DemoSummary:
    content: dict[str, Any] = {
        "out": Path("d"),
        "report": Path("d/report/report.html"),
        "wells": 120,
        "embedded": 119,
        "activity": {},
        "lowest_active_map": 0.5,
        "inert_map": 0.3,
        "inert_p": 0.4,
    }
    return DemoSummary(**(content | changes))


def test_the_verdict_needs_every_active_one_above_the_inert_one() -> None:
    assert summary().is_truth_recovered
    assert not summary(lowest_active_map=0.3).is_truth_recovered
    assert not summary(inert_p=0.04).is_truth_recovered
    assert "NOT recovered" in str(summary(inert_p=0.04))
    assert "SYNTHETIC" in str(summary())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoSettings, str]:
    """A demo of two plates and four steps with a verdict that nothing can meet, and what it was refused with."""
    settings = DemoSettings(out=tmp_path_factory.mktemp("small"), **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "SITES", 1)
        patch.setattr(run, "SIGNIFICANT_P", 1.1)
        return settings, refusal(settings)


def refusal(settings: DemoSettings) -> str:
    with pytest.raises(SomeFailedError, match="does not show what was put into the images") as caught:
        run_demo(settings)
    return caught.value.found


@pytest.mark.slow
def test_the_demo_runs_through_and_again_without_work(
    small: tuple[DemoSettings, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo refuses, and keeps everything."""
    settings, first = small
    truth = read_json(settings.out / "truth.json")
    assert truth["found"]["is_truth_recovered"] is False
    assert truth["found"]["embedded"] == truth["found"]["wells"] - 1
    assert (settings.out / "report" / "report.html").is_file()
    assert pl.read_parquet(settings.out / "embeddings.parquet").height == truth["found"]["embedded"]
    written = (settings.out / "embeddings.parquet").stat().st_mtime_ns
    monkeypatch.setattr(synthetic, "SITES", 1)
    monkeypatch.setattr(run, "SIGNIFICANT_P", 1.1)
    assert refusal(settings) == first
    assert (settings.out / "embeddings.parquet").stat().st_mtime_ns == written


@pytest.mark.truth
def test_another_process_writes_the_same_bytes_in_another_folder(
    small: tuple[DemoSettings, str], tmp_path: Path
) -> None:
    settings, _ = small
    script = f"""
import sys
from pathlib import Path
from cellvim.config import DemoSettings
from cellvim.demo import run, run_demo, synthetic
from cellvim.errors import SomeFailedError
synthetic.SITES, run.SIGNIFICANT_P = 1, 1.1
try:
    run_demo(DemoSettings(out=Path(sys.argv[1]), **{SMALL}))
except SomeFailedError as refused:
    sys.exit(refused.exit_code)
"""
    own = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONHASHSEED": "1"}
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ | own, check=False)
    assert ended.returncode == SomeFailedError.exit_code
    tables = [str(path.relative_to(settings.out)) for path in sorted(settings.out.glob("report/*.parquet"))]
    assert tables
    for name in (*COMPARED, *tables):
        assert (tmp_path / name).read_bytes() == (settings.out / name).read_bytes(), name
