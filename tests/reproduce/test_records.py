"""A record is a stranger's text: old ones are read, damaged, hostile and endless ones end in one clean error."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from cellvim.cli import app
from cellvim.config import EvaluateSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.provenance import Run, RunRecord, follow, note_attempt, read_record, sha256_of_json
from cellvim.provenance.commands import FLAGS, SUBCOMMANDS, parse_command, role_of
from cellvim.provenance.record import MOST_BYTES
from cellvim.reproduce import make_plan, run_plan

OLD: dict[str, Any] = {
    "cellvim": "0.1.0", "command": ["__main__.py", "evaluate", "table.parquet", "--out", "report"],
    "stage": "evaluate", "settings": {"seed": 0}, "settings_sha256": sha256_of_json({"seed": 0}), "seed": 0,
    "inputs": {"table": "a" * 64}, "counts": {"tables": 1}, "facts": {"token": "t"},
    "packages": {"python": "3.11.7"}, "machine": {"cpus": 2}, "started": "", "ended": "", "seconds": 1.5,
}  # fmt: skip


def written(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(OLD | changes))
    return path


def artifact(name: str, digit: str, path: str) -> dict[str, str]:
    return {"name": name, "kind": "file", "path": path, "sha256": digit * 64}


def test_the_table_of_options_is_that_of_the_commands() -> None:
    group = typer.main.get_command(app)
    for name in SUBCOMMANDS:
        parameters = group.commands[name].params  # type: ignore[attr-defined]
        for parameter in parameters:
            for option in (*parameter.opts, *parameter.secondary_opts):
                if option.startswith("--") and option != "--help":
                    role = role_of(name, option)
                    assert role is not None, (name, option)
                    assert (role == "flag") == bool(parameter.is_flag), (name, option)
            if "Path" in str(parameter.type_descriptor.annotation) or parameter.name == "out":
                words = [each for each in parameter.opts if each.startswith("--")]
                assert all(role_of(name, word) in ("input", "output") for word in words), (
                    name,
                    parameter.name,
                )
    assert FLAGS


def test_a_command_is_told_as_it_was_typed_less_what_is_loud_or_bold() -> None:
    typed = [
        "cellvim",
        "-q",
        "embed",
        "a b",
        "--model=run",
        "--overwrite",
        "--layers",
        "3,5",
        "--json",
        "--out",
        "t",
    ]
    assert parse_command(typed).words == [
        "cellvim", "embed", "a b", "--model", "run", "--layers", "3,5", "--out", "t",
    ]  # fmt: skip
    ranks = [
        "torchrun",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "cellvim",
        "pretrain",
        "p",
        "--out",
        "r",
    ]
    assert parse_command(ranks).words == ranks
    assert parse_command(["cellvim", "evaluate", "t", "--consensus", "median"]).arguments[1].value == "median"


def test_what_looks_like_an_option_never_becomes_one() -> None:
    command = parse_command(["cellvim", "evaluate", "--title", "--overwrite", "--", "--json"])
    assert command.own_words == ["evaluate", "--title=--overwrite", "./--json"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["rm", "-rf", "/"],
        ["bash", "-c", "cellvim evaluate t --out r"],
        ["python", "-c", "import os"],
        ["python", "-m", "http.server"],
        ["torchrun", "--rdzv-conf", "x", "-m", "cellvim", "pretrain"],
        ["torchrun", "evil.py", "cellvim"],
        ["cellvim"],
        ["cellvim", "study", "run", "study.yaml"],
        ["cellvim", "reproduce", "run.json", "--run"],
        ["cellvim", "evaluate", "t", "--exec", "rm"],
        ["cellvim", "evaluate", "t", "--out"],
        ["cellvim", "evaluate", "t", "--json=yes"],
    ],
)
def test_nothing_but_our_commands_is_taken(words: list[str]) -> None:
    with pytest.raises(InputError):
        parse_command(words)


@pytest.mark.parametrize("words", [["rm", "-rf", "/"], ["cellvim", "study", "run", "s.yaml"], ["pytest"]])
def test_another_program_is_shown_and_never_run(words: list[str], tmp_path: Path) -> None:
    record = written(tmp_path / "run.json", command=words, cwd=str(tmp_path), settings={"seed": 1})
    plan = make_plan(record)
    assert plan.steps[0].command is None
    with pytest.raises(InputError, match="step 1"):
        run_plan(plan, tmp_path / "again", tell=print)
    assert not (tmp_path / "again").exists()


def test_outputs_with_dots_in_their_paths_end_up_below_the_new_folder(tmp_path: Path) -> None:
    from cellvim.reproduce.places import Places

    words = [
        "cellvim",
        "normalize",
        "t.parquet",
        "--out",
        "../../x/../etc/o.parquet",
        "--save",
        "/etc/passwd.fit",
    ]
    plan = make_plan(
        written(tmp_path / "a/run.json", command=words, cwd=str(tmp_path / "a/b"), stage="normalize")
    )
    placed = Places.of(plan.steps, tmp_path / "new").command(plan.steps[0])
    options = dict(zip(placed[2::2], placed[3::2], strict=True))
    for option in ("--out", "--save"):
        assert Path(options[option]).resolve().is_relative_to((tmp_path / "new").resolve())


def test_an_old_record_is_shown_but_not_run(tmp_path: Path) -> None:
    plan = make_plan(written(tmp_path / "run.json"))
    assert [each.finding.state for each in plan.steps[0].inputs] == ["not checked"]
    assert plan.steps[0].words[:2] == ["cellvim", "evaluate"]
    with pytest.raises(InputError, match="older version"):
        run_plan(plan, tmp_path / "again", tell=print)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"command": "rm -rf /"}',
        json.dumps(OLD | {"command": ["cellvim", 7]}).encode(),
        json.dumps(OLD | {"surprise": 1}).encode(),
        json.dumps(OLD | {"schema_version": 99}).encode(),
        json.dumps(OLD | {"outputs": [{"name": "a", "path": "b", "sha256": "not one"}]}).encode(),
    ],
)  # fmt: skip
def test_what_is_no_record_is_one_clean_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError):
        make_plan(tmp_path)


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(max(MOST_BYTES + 1, 100 * 2**20))
    with pytest.raises(InputError, match="more than any record"):
        read_record(tmp_path / "run.json")


def test_no_record_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        make_plan(tmp_path)


def test_a_chain_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    for name, other, made, read in (("a", "b", "1", "2"), ("b", "a", "2", "1")):
        written(
            tmp_path / f"{name}.run.json", cwd=str(tmp_path), command=["cellvim", "embed", other],
            outputs=[artifact(name, made, f"{name}.parquet")], reads=[artifact(other, read, f"{other}.parquet")],
        )  # fmt: skip
    with pytest.raises(InputError, match="leads back to itself"):
        follow(tmp_path / "a.run.json")


def test_a_chain_without_end_ends(tmp_path: Path) -> None:
    digests = [f"{number:064x}" for number in range(130)]
    for number, digest in enumerate(digests[:-1]):
        written(
            tmp_path / f"{number}.run.json", cwd=str(tmp_path),
            outputs=[artifact("t", "0", f"{number}.parquet") | {"sha256": digest}],
            reads=[artifact("t", "0", f"{number + 1}.parquet") | {"sha256": digests[number + 1]}],
        )  # fmt: skip
    with pytest.raises(InputError, match="does not end"):
        follow(tmp_path / "0.run.json")


def test_content_decides_who_made_it_not_the_name(tmp_path: Path) -> None:
    start = written(tmp_path / "report/run.json", cwd=str(tmp_path), reads=[artifact("t", "1", "t.parquet")])
    written(tmp_path / "t.run.json", outputs=[artifact("t", "2", "t.parquet")])
    assert [node.file.name for node in follow(start)] == ["run.json"]
    written(tmp_path / "renamed.run.json", outputs=[artifact("u", "1", "u.parquet")])
    assert [node.file.name for node in follow(start)] == ["renamed.run.json", "run.json"]


def test_every_attempt_is_kept_and_a_damaged_list_stops_nothing(tmp_path: Path) -> None:
    for count in range(3):
        run = Run("evaluate", EvaluateSettings(tables=(Path("t"),), out=tmp_path))
        note_attempt(run, tmp_path)
        assert len(run.as_dict()["attempts"]) == count + 1
    (tmp_path / "attempts.json").write_text("[[")
    note_attempt(run, tmp_path)
    assert len(run.as_dict()["attempts"]) == 1


def test_a_record_as_it_is_written_is_a_record_as_it_is_read(finished: Path) -> None:
    files = [*finished.rglob("run.json"), *finished.rglob("*.run.json")]
    assert len(files) == 5
    for file in files:
        record = RunRecord.parse(file.read_bytes(), origin=file)
        assert record.schema_version == 2
        assert record.is_untouched
        assert record.cwd == str(finished)
        assert record.outputs
        assert record.reads
        assert len(record.attempts) == 1
        assert record.command[0] == "cellvim"
