"""The demo's settings, its verdict, and, in small, the whole way from synthetic plates to a report."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cellvim.atomic import read_json
from cellvim.config import DemoSettings, PretrainSettings
from cellvim.demo import DemoSummary, pretrain_settings, run, run_demo, synthetic
from cellvim.errors import SomeFailedError

CONFIG = Path(__file__).parents[2] / "configs" / "demo.yaml"


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


@pytest.mark.slow
def test_the_demo_runs_through_and_again_without_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a verdict that nothing can meet, the demo refuses, and keeps everything."""
    monkeypatch.setattr(synthetic, "SITES", 1)
    monkeypatch.setattr(run, "SIGNIFICANT_P", 1.1)
    settings = DemoSettings(out=tmp_path, plates=2, seed=21, steps=0)
    first = refusal(settings)
    truth = read_json(tmp_path / "truth.json")
    assert truth["found"]["is_truth_recovered"] is False
    assert truth["found"]["embedded"] == truth["found"]["wells"] - 1
    assert (tmp_path / "report" / "report.html").is_file()
    assert pl.read_parquet(tmp_path / "embeddings.parquet").height == truth["found"]["embedded"]
    written = (tmp_path / "embeddings.parquet").stat().st_mtime_ns
    assert refusal(settings) == first
    assert (tmp_path / "embeddings.parquet").stat().st_mtime_ns == written


def refusal(settings: DemoSettings) -> str:
    with pytest.raises(SomeFailedError, match="does not show what was put into the images") as caught:
        run_demo(settings)
    return caught.value.found
