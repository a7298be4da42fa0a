"""From a report back to the images, and forward again: what is the same is called same, and nothing else is."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cellvim.errors import CellvimError, InputError, OutputExistsError
from cellvim.reproduce import Plan, PlanSummary, RunSummary, make_plan, run_plan, running

Call = Callable[[Path, list[str]], None]


@pytest.fixture
def screen(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """The finished screen, to be changed at its own place, which the records name; put back afterwards."""
    backup = tmp_path / "backup"
    shutil.copytree(finished, backup)
    yield finished
    shutil.rmtree(finished)
    shutil.copytree(backup, finished)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    """Commands run in this process, as loading PyTorch anew for each would take most of the time."""
    monkeypatch.setattr(running, "_call", lambda _step, words, out: call(out, words))


def states(plan: Plan) -> dict[str, str]:
    return {
        f"{step.number} {each.artifact.name}": each.finding.state
        for step in plan.steps
        for each in step.inputs
    }


def altered(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def run_quietly(plan: Plan, out: Path) -> RunSummary:
    return RunSummary(out, run_plan(plan, out, tell=lambda _line: None))


def test_a_report_leads_back_to_the_images(finished: Path) -> None:
    plan = make_plan(finished / "report")
    assert [step.words[1] for step in plan.steps] == ["ingest", "pretrain", "embed", "evaluate"]
    assert set(states(plan).values()) == {"same"}
    assert {f"1 images of {plate}" for plate in ("P1", "P2")} <= states(plan).keys()
    made_by = {f"{s.number} {each.artifact.name}": each.made_by for s in plan.steps for each in s.inputs}
    assert made_by["4 table"] == 3
    assert made_by["3 run"] == 2
    assert made_by["2 P1.ome.zarr"] == made_by["3 P2.ome.zarr"] == 1
    assert made_by["1 platemap.csv"] is made_by["2 settings of mine.yaml"] is None
    assert not plan.hindrances
    assert not plan.versions
    text = str(PlanSummary(plan))
    assert "cellvim pretrain plates --out run --config 'settings of mine.yaml' --steps 0" in text
    assert "altered" not in text


@pytest.mark.parametrize(
    "start", ["report/run.json", "report/report.html", "table.parquet", "plates/P1.ome.zarr", "run"]
)
def test_any_output_leads_to_its_record(finished: Path, start: str) -> None:
    expected = {"report": 4, "table.parquet": 3, "plates": 1, "run": 2}[start.partition("/")[0]]
    assert len(make_plan(finished / start).steps) == expected


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("images/P1_A02_1_ER.tif", "1 images of P1"),
        ("platemap.csv", "1 platemap.csv"),
        ("settings of mine.yaml", "2 settings of mine.yaml"),
        ("run/model.safetensors", "3 run"),
        ("table.parquet", "4 table"),
        ("plates/P2.ome.zarr/A/01/1/0/c/0/0/0", "3 P2.ome.zarr"),
        ("plates/P2.cellvim/platemap.parquet", "3 P2.ome.zarr"),
    ],
)
def test_one_changed_bit_is_found(screen: Path, file: str, name: str) -> None:
    altered(screen / file)
    found = states(make_plan(screen / "report"))
    assert found[name] == "changed"
    others = {"1 images of P1", "1 platemap.csv", "2 settings of mine.yaml", "4 thumbnails"} - {name}
    # A lost plate map is looked for beside the images, too.
    assert {found[other] for other in others - {"1 images of P1"}} == {"same"}


def test_what_is_gone_is_missing_and_nothing_is_run(screen: Path, tmp_path: Path) -> None:
    (screen / "platemap.csv").unlink()
    shutil.rmtree(screen / "images")
    plan = make_plan(screen / "report")
    found = states(plan)
    assert found["1 platemap.csv"] == found["1 images of P1"] == "missing"
    with pytest.raises(InputError, match=r"step 1: .* is missing"):
        run_plan(plan, tmp_path / "again", tell=print)
    assert not (tmp_path / "again").exists()


def test_a_recorded_hash_that_was_changed_breaks_the_chain(screen: Path) -> None:
    def other(record: dict[str, Any]) -> None:
        for each in record["reads"]:
            each["sha256"] = "0" * 64

    rewritten(screen / "report/run.json", other)
    plan = make_plan(screen / "report")
    assert len(plan.steps) == 1
    assert states(plan)["1 table"] == "changed"
    assert "table.run.json beside it does not name this content" in str(PlanSummary(plan))
    assert len(plan.hindrances) == 2


def test_settings_that_were_changed_are_told(screen: Path) -> None:
    rewritten(screen / "report/run.json", lambda record: record["settings"].update(null_size=51))
    assert f"altered  {screen / 'report/run.json'}" in str(PlanSummary(make_plan(screen / "report")))


def test_a_chain_that_is_moved_as_a_whole_is_still_whole(finished: Path, tmp_path: Path) -> None:
    moved, hidden = tmp_path / "elsewhere", finished.with_name("hidden")
    shutil.copytree(finished, moved)
    finished.rename(hidden)
    try:
        plan = make_plan(moved / "report")
        assert len(plan.steps) == 4
        assert set(states(plan).values()) == {"same"}
        assert all(each.path.is_relative_to(moved) for step in plan.steps for each in step.inputs)  # type: ignore[union-attr]
    finally:
        hidden.rename(finished)


@pytest.mark.usefixtures("in_process")
def test_run_again_it_gives_the_same_bytes_and_touches_no_original(finished: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    plan = make_plan(finished / "report")
    summary = run_quietly(plan, tmp_path / "again")
    assert [(each.number, each.is_same, each.was_there) for each in summary.outcomes] == [
        (number, True, False) for number in (1, 2, 3, 4)
    ]
    assert (tmp_path / "again/report/report.html").read_bytes() == (
        finished / "report/report.html"
    ).read_bytes()
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    # What is missing of it is made once more, the rest is left as it is.
    (tmp_path / "again/report/metrics.json").unlink()
    second = run_quietly(plan, tmp_path / "again")
    assert [each.was_there for each in second.outcomes] == [True, True, True, False]
    assert second.is_same
    # Provenance of the copy tells the same story.
    assert len(make_plan(tmp_path / "again/report").steps) == 4


def test_another_setting_gives_other_bytes_and_is_named(screen: Path, tmp_path: Path) -> None:
    def other(record: dict[str, Any]) -> None:
        place = record["command"].index("--null-size") + 1
        record["command"][place] = "60"

    rewritten(screen / "report/run.json", other)
    plan = make_plan(screen / "report", only_last=True)
    summary = run_quietly(plan, tmp_path / "again")
    text = str(summary)
    assert not summary.is_same
    assert "step 1  evaluate  differs" in text
    assert "setting null_size is 60, recorded 50" in text
    assert "metrics.json  recorded" in text


def test_originals_and_strange_folders_are_never_written_to(finished: Path, tmp_path: Path) -> None:
    plan = make_plan(finished / "report")
    for out in (finished, finished / "report", finished / "plates/again", finished.parent):
        with pytest.raises(CellvimError) as caught:
            run_plan(plan, out, tell=print)
        assert caught.value.exit_code in (3, 4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError):
        run_plan(plan, tmp_path / "mine", tell=print)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
