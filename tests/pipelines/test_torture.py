"""The judges of the torture: each of them can say no, and every section of the page is written by its own campaign."""

import shutil
import signal
import sys
from pathlib import Path

import pytest

from pipelines.torture.disk import Trial
from pipelines.torture.ingest import ingest_section, workers_of
from pipelines.torture.kills import Campaign, Kill, Stage, differing_bytes, finish_run, torture
from pipelines.torture.page import TITLES, Section, read_sections, update_page
from pipelines.torture.pretraining import phase_of, pretraining_section, results, torture_pretraining
from pipelines.torture.writers import Round, writers_section

WRITE_SLOWLY = """
import sys, time
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
print("started", file=sys.stderr)
time.sleep(0.3)
(folder / "result").write_text(sys.argv[2])
"""


@pytest.mark.slow
def test_pretraining_killed_at_two_random_moments_leaves_the_same_bytes(tmp_path: Path) -> None:
    campaign = torture_pretraining(tmp_path / "out", kills=2, seed=1)
    assert len(campaign.kills) >= 2
    assert campaign.is_passed, campaign
    assert {"model.safetensors", "metrics.jsonl", "loss.png", "summary.json"} <= set(campaign.compared)
    assert "checkpoints/step-00000120.safetensors" in campaign.compared


def slow_stage(*, text: str) -> Stage:
    """A stage whose killed runs end with another result than the undisturbed one, unless the texts agree."""
    return Stage(
        "slow",
        lambda run, _number, attempt: [
            sys.executable,
            "-c",
            WRITE_SLOWLY,
            str(run),
            text if attempt else "right",
        ],
        lambda run: {path.name: path for path in run.iterdir()},
        lambda _run: "at work",
        "at work",
    )


def test_a_campaign_meets_every_signal_and_sees_a_result_that_differs(tmp_path: Path) -> None:
    signals = [signal.SIGKILL, signal.SIGTERM]
    good = torture(slow_stage(text="right"), tmp_path / "good", signals, seed=0)
    assert [kill.sent for kill in good.kills] == ["SIGKILL", "SIGTERM"]
    assert good.is_passed, good
    bad = torture(slow_stage(text="wrong"), tmp_path / "bad", signals, seed=0)
    assert bad.differing_files == {"result"}
    assert bad.differing_bytes > 0
    assert (tmp_path / "bad" / "run-0").is_dir()
    assert not (tmp_path / "good" / "run-0").exists()


def test_every_byte_that_differs_is_counted(tmp_path: Path) -> None:
    stage = Stage("pretrain", lambda *_: [], results, phase_of, "")
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    (left / "model.safetensors").write_bytes(bytes(100))
    (left / "metrics.jsonl").write_bytes(b"12345")
    (left / "run.json").write_text("Monday")
    shutil.copytree(left, right)
    (right / "run.json").write_text("Tuesday")
    assert differing_bytes(left, right, stage) == 0
    (right / "model.safetensors").write_bytes(bytes(98) + b"\1")
    assert differing_bytes(left, right, stage) == 2
    (right / "metrics.jsonl").unlink()
    assert differing_bytes(left, right, stage) == differing_bytes(right, left, stage) == 7
    for folder, content in ((left, b"\0\0"), (right, b"\0\1")):
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/step-00000010.safetensors").write_bytes(b"early" + content)
        (folder / "checkpoints/step-00000020.safetensors").write_bytes(content)
    assert differing_bytes(left, right, stage) == 8


def test_a_run_that_does_not_resume_fails_the_campaign() -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('no way back')"]
    campaign = Campaign("pretrain", 8.0)
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


def test_sections_hold_what_was_found_good_or_bad() -> None:
    kills = [
        Kill(1.0, "SIGKILL", -9, "between checkpoints"),
        Kill(2.0, "SIGTERM", 75, "between checkpoints"),
    ]
    campaign = Campaign("pretrain", 8.0, ("model.safetensors",), kills, 1)
    section = pretraining_section(campaign, "somewhere")
    assert "| pretrain | 2 | 1 | 1 | 0 | 0 |" in section.body
    assert "| between checkpoints | 1 | 1 | 1 |" in section.body
    assert not section.failures
    campaign.differing_bytes, campaign.differing_files = 3, {"model.safetensors"}
    section = pretraining_section(campaign, "somewhere")
    assert "| pretrain | 2 | 1 | 1 | 3 | 0 |" in section.body
    assert section.failures == ["pretrain: model.safetensors differs"]
    assert "| 1 | 1 | 0 | 1 | 1 | 1 | 3 | 0 |" in ingest_section(campaign, "somewhere").body


def test_runs_begin_with_one_worker_and_go_on_with_four() -> None:
    assert [workers_of(run, 0) for run in range(4)] == [2, 1, 2, 2]
    assert [workers_of(run, 1) for run in range(4)] == [2, 4, 2, 2]


def test_a_disk_that_lies_or_holds_its_lock_is_seen() -> None:
    good = Trial("full", 5, "error: x\nhint: y\n", 3, (), False, True, 9.0)
    assert good.failures == []
    bad = Trial("full", 70, "Traceback", 3, ("zarr.json",), True, False, 9.0)
    assert len(bad.failures) == 5
    slow = Trial("read-only", 5, "error: x\nhint: y\n", 0, (), False, None, 9.0)
    assert slow.failures == ["read-only: took 9.0 s"]


def test_two_winners_or_a_holder_that_nobody_names_fail_a_round() -> None:
    good = Round(1, 7, 7, True, ())
    for bad in (Round(2, 6, 6, True, ()), Round(1, 7, 6, True, ()), Round(1, 7, 7, False, ())):
        section = writers_section([good, bad], "somewhere")
        assert len(section.failures) == 1
    assert not writers_section([good], "somewhere").failures


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for title in (TITLES[2], TITLES[0]):
        update_page(page, Section(title, f"old body of {title}\n"))
    update_page(page, Section(TITLES[2], "new body\n\n| a |\n|---|\n"))
    sections = read_sections(page.read_text())
    assert list(sections) == [TITLES[0], TITLES[2]]
    assert sections[TITLES[0]] == f"old body of {TITLES[0]}"
    assert sections[TITLES[2]] == "new body\n\n| a |\n|---|"
