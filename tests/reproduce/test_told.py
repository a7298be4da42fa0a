"""What metrics and report tell of their making: every hash, no path of a machine, and the same in any folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cellvim.config import EmbedSettings, EvaluateSettings, IngestSettings
from cellvim.evaluate.origins import OF_TASKS
from cellvim.provenance import sha256_of_file
from cellvim.provenance.chain import follow
from cellvim.provenance.from_settings import command_from_settings
from cellvim.provenance.telling import told

Call = Callable[[Path, list[str]], None]


def provenance(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text())["provenance"])


def test_metrics_name_every_step_by_its_content(finished: Path) -> None:
    told = provenance(finished / "report")
    assert [step["stage"] for step in told["steps"]] == ["ingest", "ingest", "pretrain", "embed", "evaluate"]
    assert told["images"] == 36
    assert told["tables"] == {"table": sha256_of_file(finished / "table.parquet")}
    made = {each["name"]: each["sha256"] for step in told["steps"] for each in step["makes"]}
    assert made["table.parquet"] == sha256_of_file(finished / "table.parquet")
    assert made["model.safetensors"] == sha256_of_file(finished / "run/model.safetensors")
    assert told["steps"][-1]["command"] == (
        "cellvim evaluate table.parquet --tasks activity --null-size 50 --bootstraps 10 --out report"
    )
    assert told["tasks"]["activity"] == {
        "normalize": "sphere", "average": "mean", "null_size": 50, "bootstraps": 10, "seed": 0,
    }  # fmt: skip


def test_a_step_names_the_libraries_it_had_another_version_of(finished: Path) -> None:
    told_once = provenance(finished / "report")["versions"]
    assert {"cellvim", "python", "torch", "tensorstore"} <= told_once.keys()
    assert not any("versions" in step for step in provenance(finished / "report")["steps"])
    nodes = follow(finished / "report")
    told_now = told(nodes, {**told_once, "torch": "1.0.0"})
    assert [step["versions"] for step in told_now["steps"]] == [{"torch": told_once["torch"]}] * 5


def test_nothing_that_is_told_knows_the_machine(finished: Path) -> None:
    for name in ("metrics.json", "report.html"):
        text = (finished / "report" / name).read_text()
        assert str(finished.parent) not in text
        assert finished.parent.name not in text


def test_another_layout_of_folders_gives_the_same_bytes(finished: Path, call: Call, tmp_path: Path) -> None:
    other = tmp_path / "other layout"
    for name in ("plates", "run"):
        shutil.copytree(finished / name, other / "deeper" / f"my {name}")
    call(
        other,
        ["embed", "deeper/my plates", "--out", "t/table.parquet", "--model", str(other / "deeper/my run")],
    )
    call(
        other,
        [
            "evaluate",
            "t/table.parquet",
            "--bootstraps=10",
            "--null-size=50",
            "--tasks=activity",
            "--out",
            "found",
        ],
    )
    for name in ("metrics.json", "report.html"):
        assert (other / "found" / name).read_bytes() == (finished / "report" / name).read_bytes()


def test_the_page_has_every_hash_and_a_way_back_from_each_section(finished: Path) -> None:
    text = (finished / "report/report.html").read_text()
    section = text[text.index('<section id="provenance"') :]
    for step in provenance(finished / "report")["steps"]:
        for each in (*step["reads"], *step["makes"]):
            assert each["sha256"] in section
    line = f"From table ({sha256_of_file(finished / 'table.parquet')[:12]}): normalize sphere, average mean, null size 50"
    assert line in text[text.index('<section id="perturbations"') :]
    assert text.count('<a href="#provenance">The way back</a>') == text.count('class="origin"') >= 3


def test_a_table_of_unknown_origin_has_a_chain_of_one(finished: Path, call: Call, tmp_path: Path) -> None:
    shutil.copy(finished / "table.parquet", tmp_path / "foreign.parquet")
    call(tmp_path, ["evaluate", "foreign.parquet", "--out", "r", "--tasks", "activity", "--null-size", "50"])
    told = provenance(tmp_path / "r")
    assert [step["stage"] for step in told["steps"]] == ["evaluate"]
    assert told["images"] is None


def test_every_task_says_what_decides_it() -> None:
    assert set(OF_TASKS) == set(EvaluateSettings.model_fields["tasks"].default)


@pytest.mark.parametrize(
    ("stage", "settings", "expected"),
    [
        (
            "ingest",
            IngestSettings(sources=(Path("a"), Path("b")), out="p", z=3, on_missing="fill"),
            "ingest a b --on-missing fill --z 3 --out p",
        ),
        (
            "embed",
            EmbedSettings(
                plates=("p",), model=Path("m"), out=Path("t.parquet"), layers=(1, 3), has_intensity=True
            ),
            "embed p --model m --layers 1,3 --intensity --out t.parquet",
        ),
        (
            "evaluate",
            EvaluateSettings(
                tables=(Path("t.csv"),), out=Path("r"), control="Metadata_a=b c", different_position=True
            ),
            "evaluate t.csv --control Metadata_a=b c --different-position --out r",
        ),
    ],
)
def test_settings_are_spelled_as_flags(stage: str, settings: Any, expected: str) -> None:
    command = command_from_settings(stage, settings.model_dump(mode="json"))
    assert command is not None
    assert " ".join(command.own_words) == expected


def test_synthetic_pages_have_no_command_of_their_own() -> None:
    settings = EvaluateSettings(tables=(Path("t.csv"),), out=Path("r"), is_synthetic=True)
    assert command_from_settings("evaluate", settings.model_dump(mode="json")) is None
