"""A study file: every way to name plates, every mistake in it, and the commands that it stands for."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cellvim.cli import app
from cellvim.config import StudyJobs, StudySettings
from cellvim.errors import InputError, NotFoundError, OutputExistsError
from cellvim.study import plan_study, write_study_file
from cellvim.study.plan import as_flags
from cellvim.study.status import look_at_study

SMALLEST: dict[str, Any] = {"name": "screen", "plates": "images/*", "pretrain": {"steps": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for plate in ("P1", "P2", "P10"):
        (tmp_path / "images" / plate).mkdir(parents=True)
    (tmp_path / "images" / ".thumbnails").mkdir()
    (tmp_path / "images" / "notes.txt").touch()
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.csv").touch()
    return tmp_path


def write(folder: Path, **content: Any) -> Path:
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({**SMALLEST, **content}))
    return file


def test_the_template_says_what_holds_when_nothing_is_said(folder: Path) -> None:
    file = folder / "study.yaml"
    write_study_file(file)
    settings = StudySettings.from_yaml(file)
    assert settings.jobs == StudyJobs()
    assert settings.out == StudySettings.model_validate(SMALLEST).out
    assert [plate.name for plate in plan_study(file).plates] == ["P1", "P10", "P2"]


def test_a_job_that_names_one_key_keeps_the_others_of_its_step() -> None:
    whole = StudyJobs()
    named = StudyJobs.model_validate(
        {step: {"gpus": 1} for step in ("ingest", "pretrain", "embed", "evaluate")}
    )
    for step in ("ingest", "pretrain", "embed", "evaluate"):
        assert getattr(named, step) == getattr(whole, step).model_copy(update={"gpus": 1})


def test_every_key_of_a_study_stands_in_the_template(folder: Path) -> None:
    write_study_file(folder / "study.yaml")
    text = (folder / "study.yaml").read_text()
    missing = [key for key in (*StudySettings.model_fields, *StudyJobs.model_fields) if f"{key}:" not in text]
    assert missing == []


@given(name=st.text(min_size=1, max_size=20), platemap=st.none() | st.text(min_size=1, max_size=20))
def test_whatever_is_named_comes_back_from_the_template(
    tmp_path_factory: pytest.TempPathFactory, name: str, platemap: str | None
) -> None:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    write_study_file(file, plates=name, platemap=platemap)
    content = yaml.safe_load(file.read_text())
    assert content["plates"] == name
    assert content.get("platemap") == platemap


def test_a_study_file_is_never_replaced(folder: Path) -> None:
    file = write(folder)
    with pytest.raises(OutputExistsError):
        write_study_file(file)


def test_plates_by_pattern_by_list_and_by_table_are_the_same(folder: Path) -> None:
    names = ["P1", "P10", "P2"]
    (folder / "plates.csv").write_text("name,images\n" + "".join(f"{n},images/{n}\n" for n in names))
    ways: list[Any] = [
        "images/*",
        ["images/P1*", "images/P2", "images/*"],
        [{"name": name, "images": f"images/{name}"} for name in names],
        "plates.csv",
    ]
    plans = [plan_study(write(folder, plates=way)).as_dict()["plates"] for way in ways]
    assert all(plan == plans[0] for plan in plans)
    assert list(plans[0]) == names


def test_a_plate_takes_its_own_map_before_that_of_the_study(folder: Path) -> None:
    (folder / "maps" / "b.csv").touch()
    (folder / "plates.csv").write_text("name,images,platemap\nP1,images/P1,maps/b.csv\nP2,images/P2,\n")
    plan = plan_study(write(folder, plates="plates.csv", platemap="maps/a.csv"))
    maps = [plan.ingest(plate)[plan.ingest(plate).index("--platemap") + 1] for plate in plan.plates]
    assert maps == ["maps/b.csv", "maps/a.csv"]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        ({"plates": "nothing/*"}, NotFoundError, "nothing/"),
        ({"plates": "plates.csv"}, NotFoundError, "table of plates"),
        ({"plates": []}, InputError, "plates"),
        ({"plates": ""}, InputError, "is no pattern"),
        ({"plates": "images/**x"}, InputError, "is no pattern"),
        ({"out": "~/results"}, InputError, "write the path out"),
        ({"out": "$SCRATCH/results"}, InputError, "write the path out"),
        ({"plates": [{"name": "../P1", "images": "images/P1"}]}, InputError, "a name is made of"),
        ({"plates": [{"name": "A", "images": "images/P9"}]}, NotFoundError, "images of A"),
        ({"plates": [{"name": "A", "images": "images/P1"}] * 2}, InputError, "more than one plate, first A"),
        ({"platemap": "maps/none.csv"}, NotFoundError, "plate map of the study"),
        ({"pretrain": None}, InputError, "what to train"),
        ({"model": "run"}, InputError, "what to train"),
        ({"pretrain": None, "model": "run"}, NotFoundError, "no model"),
        ({"pretrain": {"stepps": 3}}, InputError, "stepps"),
        (
            {"pretrain": {"steps": 0, "plates": ["x"]}},
            InputError,
            "pretrain: plates: set by the study itself",
        ),
        ({"embed": {"each_layer": True}}, InputError, "each_layer"),
        ({"pretrain_plates": ["Q*"]}, InputError, "pretrain_plates"),
        ({"ingest": {"out": "elsewhere"}}, InputError, "set by the study itself"),
        ({"ingest": {"a b": 1}}, InputError, "not the name of a flag"),
        ({"evaluate": {"tasks": {"a": 1}}}, InputError, "expected a text"),
        ({"jobs": {"atempts": 3}}, InputError, "atempts"),
    ],
)
def test_a_mistake_is_named(folder: Path, content: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("*", r"\*")):
        plan_study(write(folder, **content))


@pytest.mark.parametrize("table", ["", "name\nP1\n", "name,images\nP1\n,", "\x00\xff"])
def test_a_table_of_plates_that_is_none(folder: Path, table: str) -> None:
    (folder / "plates.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(InputError):
        plan_study(write(folder, plates="plates.csv"))


def test_a_flag_that_a_step_does_not_have_is_told_before_anything_runs(folder: Path) -> None:
    for section, flags, said in [
        ("ingest", {"on_mising": "fill"}, "--on-mising"),
        ("ingest", {"on_missing": "ignore"}, "ignore"),
        ("embed", {"tile_px": "large"}, "--tile-px"),
        ("evaluate", {"normalise": "mad"}, "--normalise"),
    ]:
        file = write(folder, **{section: flags})
        result = CliRunner().invoke(app, ["study", "plan", str(file)])
        assert isinstance(result.exception, InputError)
        assert said in result.exception.found


texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=20)


@given(
    st.dictionaries(st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True), texts | st.booleans() | st.integers())
)
def test_flags_come_back_from_the_shell_as_they_were_meant(section: dict[str, Any]) -> None:
    words = shlex.split(shlex.join(as_flags(section)))
    expected: list[str] = []
    for key, value in section.items():
        if value is not False:
            expected += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    assert words == expected


def test_a_folder_with_a_name_that_ingest_takes_is_a_plate(folder: Path) -> None:
    names = ["a+b", "n" * 120, "un écran"]
    for name in names:
        (folder / "more" / name).mkdir(parents=True)
    plan = plan_study(write(folder, plates="more/*"))
    assert [plate.name for plate in plan.plates] == ["a+b", "n" * 120, "un_cran"]
    assert sorted(plan.ingest(plate)[2] for plate in plan.plates) == [f"more/{name}" for name in names]
    (folder / "more" / "Плита").mkdir()
    with pytest.raises(InputError) as caught:
        plan_study(write(folder, plates="more/*"))
    assert "a list or a table of plates" in caught.value.hint


def test_a_folder_named_like_a_flag_is_a_folder(folder: Path) -> None:
    (folder / "--overwrite").mkdir()
    plan = plan_study(write(folder, plates="--overwrite"))
    assert plan.ingest(plan.plates[0])[2] == "./--overwrite"
    assert plan.plates[0].name == "overwrite"


def test_thousands_of_plates_are_no_command_line(folder: Path) -> None:
    rows = [f"plate{number},images/P1" for number in range(5000)]
    (folder / "plates.csv").write_text("\n".join(["name,images", *rows]))
    plan = plan_study(write(folder, plates="plates.csv"))
    assert max(len(shlex.join(command)) for command in plan.commands()) < 500
    plan.write_pretrain_file()
    assert len(yaml.safe_load((folder / plan.pretrain_file).read_text())["plates"]) == 5000


def test_several_gpus_train_by_torchrun(folder: Path) -> None:
    command = plan_study(write(folder, jobs={"pretrain": {"gpus": 4}})).pretrain()
    assert command is not None
    assert command[:6] == ("torchrun", "--standalone", "--nproc-per-node", "4", "-m", "cellvim")


def test_a_plate_that_its_map_lacks_is_found_by_looking(folder: Path) -> None:
    for plate in ("P1", "P2"):
        tifffile.imwrite(folder / "images" / plate / f"{plate}_A01_1_DNA.tif", np.ones((8, 8), np.uint16))
    (folder / "maps" / "a.csv").write_text("plate,well,perturbation\nP1,A01,DMSO\n")
    ingest = {"pattern": "{plate}_{well}_{field}_{channel}.tif"}
    file = write(folder, plates="images/P[12]", platemap="maps/a.csv", ingest=ingest)
    assert CliRunner().invoke(app, ["study", "plan", str(file)]).exit_code == 0
    found = CliRunner().invoke(app, ["study", "plan", str(file), "--look"]).exception
    assert isinstance(found, InputError)
    assert found.found.startswith("1 of 2 plates would be refused, first P2: the plate map has no plate 'P2'")
    (folder / "maps" / "a.csv").write_text("plate,well,perturbation\nP1,A01,DMSO\nP2,A01,DMSO\n")
    seen = CliRunner().invoke(app, ["study", "plan", str(file), "--look"])
    assert seen.stdout.startswith("screen: 2 plates")
    assert not (folder / "results").exists()


def test_the_plan_for_machines_and_for_people(folder: Path) -> None:
    file = write(folder, evaluate={"tasks": ["activity", "consistency"], "different_position": True})
    machine = json.loads(CliRunner().invoke(app, ["study", "plan", str(file), "--json"]).stdout)
    words = shlex.split(machine["evaluate"])
    assert words[:3] == ["cellvim", "evaluate", "results/profiles"]
    assert words[words.index("--tasks") + 1] == "activity,consistency"
    assert "--different-position" in words
    assert words[words.index("--title") + 1] == "screen"
    person = CliRunner().invoke(app, ["study", "plan", str(file)]).stdout
    assert machine["evaluate"] in person
    assert machine["plates"]["P1"]["ingest"] in person


def test_status_before_anything_has_run(folder: Path) -> None:
    state = look_at_study(plan_study(write(folder)))
    assert "3 waiting of 3 plates" in str(state)
    json.dumps(state.as_dict())
