"""The judges of the torture: each of them can say no, and every section of the page is written by its own campaign."""

import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from pipelines.torture import embedding
from pipelines.torture.disk import Needs, Trial, is_right
from pipelines.torture.full_disks import disks_section
from pipelines.torture.ingest import ingest_section, workers_of
from pipelines.torture.kills import Campaign, Kill, Stage, differing_bytes, finish_run, is_killed, torture
from pipelines.torture.page import TITLES, Section, read_sections, update_page
from pipelines.torture.pretraining import phase_of, pretraining_section, results, torture_pretraining
from pipelines.torture.read_only import Refusal, read_only_section
from pipelines.torture.writers import Round, other_writers_section, writers_section

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
    campaign = torture_pretraining(tmp_path / "out", kills=1, seed=1, steps=40)
    assert {kill.sent for kill in campaign.kills} == {"SIGKILL", "SIGTERM"}
    assert campaign.is_passed, campaign
    assert {"model.safetensors", "metrics.jsonl", "loss.png", "summary.json"} <= set(campaign.compared)
    assert "checkpoints/step-00000040.safetensors" in campaign.compared


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
    assert all(0 < kill.lasted_s < 30 for kill in good.kills)
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


def test_a_signal_that_stops_nothing_is_counted_and_timed(tmp_path: Path) -> None:
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); sys.stderr.write('s'); time.sleep(0.5)"
    stage = Stage(
        "deaf", lambda *_: [sys.executable, "-c", deaf if not tmp_path.joinpath("told").exists() else "pass"],
        lambda _run: {}, lambda _run: "at work", "at work",
    )  # fmt: skip
    campaign = Campaign("deaf", 0.5)
    met = is_killed(stage, tmp_path, 0, signal.SIGTERM, campaign, delay_s=0.3)
    assert not met
    assert campaign.kills == []
    assert campaign.longest_s("SIGTERM") == max(campaign.finished["SIGTERM"]) > 0
    assert campaign.longest_s("SIGKILL") == 0


def test_sections_hold_what_was_found_good_or_bad() -> None:
    kills = [
        Kill(1.0, "SIGKILL", -9, "between checkpoints", 0.1),
        Kill(2.0, "SIGTERM", 75, "between checkpoints", 0.7),
    ]
    campaign = Campaign("pretrain", 8.0, ("model.safetensors",), kills, 1)
    section = pretraining_section(campaign, "somewhere")
    assert "| 1 | 1 | 1 | 1 | 0 | 0 |" in section.body
    assert "| between checkpoints | 1 | 1 | 1 |" in section.body
    assert "0.7 s at most" in section.body
    assert not section.failures
    assert [row.is_met for row in section.rows] == [False, True], "one kill is not thirty"
    campaign.differing_bytes, campaign.differing_files = 3, {"model.safetensors"}
    section = pretraining_section(campaign, "somewhere")
    assert "| 1 | 1 | 1 | 1 | 3 | 0 |" in section.body
    assert section.failures == ["pretrain: model.safetensors differs"]
    assert not any(row.is_met for row in section.rows)
    assert "| 1 | 1 | 0 | 1 | 1 | 1 | 3 | 0 |" in ingest_section(campaign, "somewhere").body
    assert "| 1 | 1 | 0 | 1 | 1 | 1 | 3 | 0 |" in embedding.embedding_section(campaign, "somewhere").body


def test_a_run_that_ends_late_or_otherwise_misses_the_figure_of_sigterm() -> None:
    for late in (
        Kill(2.0, "SIGTERM", 75, "between checkpoints", 31.0),
        Kill(2.0, "SIGTERM", -15, "between checkpoints", 1.0),
    ):
        assert not pretraining_section(Campaign("pretrain", 8.0, (), [late], 1), "somewhere").rows[1].is_met


def test_runs_begin_with_one_worker_and_go_on_with_four() -> None:
    assert [workers_of(run, 0) for run in range(4)] == [2, 1, 2, 2]
    assert [workers_of(run, 1) for run in range(4)] == [2, 4, 2, 2]


def test_a_disk_that_lies_or_holds_its_lock_is_seen() -> None:
    good = Trial(
        "embed", "full", 5, "error: x\nhint: y\n", 3, (), is_locked=False, is_resumed=True, seconds=9.0
    )
    assert good.failures == []
    bad = replace(
        good, code=70, words="Traceback", truncated=("zarr.json",), is_locked=True, is_resumed=False
    )
    assert len(bad.failures) == 5
    fitting = replace(good, code=0, words="")
    assert fitting.failures == []
    assert len(replace(fitting, truncated=("a.parquet",), is_resumed=False).failures) == 2
    for trials, is_met in (([good] * 10, True), ([good] * 9, False), ([*[good] * 9, bad], False)):
        assert disks_section({"embed": (Needs(4096, 3, {}), trials)}, "somewhere").rows[0].is_met is is_met


def test_a_file_that_is_cut_is_not_right(tmp_path: Path) -> None:
    table, tensors = tmp_path / "a.parquet", tmp_path / "a.safetensors"
    pl.DataFrame({"a": [1, 2]}).write_parquet(table)
    save_file({"a": np.zeros(9, np.float32)}, tensors)
    for path in (table, tensors):
        assert is_right(path, None)
        assert is_right(path, path.read_bytes())
        assert not is_right(path, path.read_bytes() + b"more")
        path.write_bytes(path.read_bytes()[:-1])
        assert not is_right(path, None)
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(b"one\ntw")
    assert is_right(log, b"one\ntwo\n")
    assert not is_right(log, b"one\nthree\n")
    (tmp_path / "unknown.bin").touch()
    assert not is_right(tmp_path / "unknown.bin", None)


def test_two_winners_or_a_holder_that_nobody_names_fail_a_round() -> None:
    good = Round(8, 1, 7, 7, is_intact=True, unexpected=())
    for bad in (
        replace(good, winners=2, refused=6, named=6), replace(good, named=6), replace(good, is_intact=False),
    ):  # fmt: skip
        section = writers_section([good, bad], "somewhere")
        assert len(section.failures) == 1
        assert not other_writers_section({"embed": [good, bad]}, "somewhere").rows[0].is_met
    section = writers_section([good] * 20, "somewhere")
    assert not section.failures
    assert section.rows[0].is_met


def test_a_slow_or_wordless_refusal_fails() -> None:
    good = Refusal("embed", 5, "error: x\nhint: y\n", 0.3)
    assert read_only_section([good], "somewhere").rows[0].is_met
    for bad in (replace(good, seconds=2.1), replace(good, code=0), replace(good, words="error: x\n")):
        section = read_only_section([good, bad], "somewhere")
        assert len(section.failures) == 1
        assert not section.rows[0].is_met


def test_the_folder_of_a_dead_embedding_tells_what_it_had_been_at(tmp_path: Path) -> None:
    parts = tmp_path / "tables/wells.parquet.parts"
    parts.mkdir(parents=True)
    found = [embedding.phase_of(tmp_path, 2)]
    for name in ("P1.thumbnails.parquet", "P1.parquet", "P2.parquet", ".tmp-7-x", "../wells.parquet"):
        (parts / name).touch()
        found.append(embedding.phase_of(tmp_path, 2))
        (parts / ".tmp-7-x").unlink(missing_ok=True)
    names = embedding.PHASES
    assert found == [names[0], names[0], names[1], names[3], names[2], names[4]]


def test_a_section_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for title in (TITLES[2], TITLES[0]):
        update_page(page, Section(title, f"old body of {title}\n"))
    update_page(page, Section(TITLES[2], "new body\n\n| a |\n|---|\n"))
    sections = read_sections(page.read_text())
    assert list(sections) == [TITLES[0], TITLES[2]]
    assert sections[TITLES[0]] == f"old body of {TITLES[0]}"
    assert sections[TITLES[2]] == "new body\n\n| a |\n|---|"
