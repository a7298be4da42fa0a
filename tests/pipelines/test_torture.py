"""A small sample of the kill campaign, and that its judge can say no."""

import shutil
import sys
from pathlib import Path

import pytest

from pipelines.torture import (
    Campaign,
    Kill,
    differing_bytes,
    finish_run,
    phase_of,
    reliability_page,
    torture_pretraining,
)


@pytest.mark.slow
def test_pretraining_killed_at_two_random_moments_leaves_the_same_bytes(tmp_path: Path) -> None:
    campaign = torture_pretraining(tmp_path / "out", kills=2, seed=1)
    assert len(campaign.kills) >= 2
    assert campaign.is_passed, campaign
    assert {"model.safetensors", "metrics.jsonl", "loss.png", "summary.json"} <= set(campaign.compared)
    assert "checkpoints/step-00000120.safetensors" in campaign.compared


def test_every_byte_that_differs_is_counted(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(100))
    (left / "metrics.jsonl").write_bytes(b"12345")
    (left / "run.json").write_text("Monday")
    shutil.copytree(left, right)
    (right / "run.json").write_text("Tuesday")
    assert differing_bytes(left, right) == 0
    (right / "model.safetensors").write_bytes(bytes(98) + b"\1")
    assert differing_bytes(left, right) == 2
    (right / "metrics.jsonl").unlink()
    assert differing_bytes(left, right) == differing_bytes(right, left) == 7
    for folder, content in ((left, b"\0\0"), (right, b"\0\1")):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/step-00000010.safetensors").write_bytes(b"early" + content)
        (folder / "checkpoints/step-00000020.safetensors").write_bytes(content)
    assert differing_bytes(left, right) == 8


def test_a_run_that_does_not_resume_fails_the_campaign() -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('no way back')"]
    campaign = Campaign("pretrain", "cellvim pretrain", 8.0)
    finish_run(broken, campaign)
    assert not campaign.is_passed
    assert campaign.unexpected == ["resumed, exit 1: no way back"]


def test_the_folder_of_a_dead_run_tells_what_it_had_been_at(tmp_path: Path) -> None:
    assert phase_of(tmp_path) == "before the first checkpoint"
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "step-00000007.safetensors").touch()
    assert phase_of(tmp_path) == "between checkpoints"
    (checkpoints / ".tmp-1-step-00000014.safetensors").touch()
    assert phase_of(tmp_path) == "while a file was being written"
    (checkpoints / ".tmp-1-step-00000014.safetensors").rename(checkpoints / "step-00000120.safetensors")
    assert phase_of(tmp_path) == "after the last step"


def test_the_page_holds_what_was_found_good_or_bad() -> None:
    kills = [
        Kill(1.0, "SIGKILL", -9, "between checkpoints"),
        Kill(2.0, "SIGTERM", 75, "between checkpoints"),
    ]
    campaign = Campaign("pretrain", "cellvim pretrain", 8.0, ("model.safetensors",), kills, 1)
    page = reliability_page([campaign], "python -m pipelines.torture --out out/torture")
    assert "| pretrain | 2 | 1 | 1 | 0 | 0 |" in page
    assert "| between checkpoints | 1 | 1 | 1 |" in page
    campaign.differing_bytes = 3
    assert not campaign.is_passed
    assert "| pretrain | 2 | 1 | 1 | 3 | 0 |" in reliability_page([campaign], "")
