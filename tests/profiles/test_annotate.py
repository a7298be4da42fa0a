"""What was done to a well: from the table, a plate map, or an option."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cellvim.errors import InputError
from cellvim.profiles import Profiles, annotate

MakeProfiles = Callable[..., Profiles]


def test_the_contracts_columns_are_used_as_they_are(make_profiles: MakeProfiles) -> None:
    profiles = annotate(
        make_profiles(np.eye(3), Perturbation=["a", "b", None], ControlType=[None, "negcon", "empty"])
    )
    assert profiles.metadata["Metadata_Perturbation"].to_list() == ["a", "b", None]
    assert profiles.is_control.tolist() == [False, True, False]
    assert profiles.notes == ()


def test_a_peers_columns_are_recognised_and_said_so(make_profiles: MakeProfiles) -> None:
    profiles = annotate(
        make_profiles(np.eye(3), broad_sample=["BRD-1", "DMSO", None], pert_type=["trt", "control", "empty"])
    )
    assert profiles.metadata["Metadata_Perturbation"].to_list() == ["BRD-1", "DMSO", None]
    assert profiles.metadata["Metadata_ControlType"].to_list() == [None, "negcon", "empty"]
    assert len(profiles.notes) == 2


@pytest.mark.parametrize(
    "mark", ["negative_control", "DMSO control", "NegCon", "Vehicle", "negative-control"]
)
def test_a_foreign_spelling_of_the_contracts_column_is_understood(
    make_profiles: MakeProfiles, mark: str
) -> None:
    profiles = annotate(
        make_profiles(np.eye(3), Perturbation=["a", "b", "c"], ControlType=["trt", mark, "Positive control"])
    )
    assert profiles.metadata["Metadata_ControlType"].to_list() == [None, "negcon", "poscon"]
    assert profiles.notes == ("negative controls are taken from Metadata_ControlType",)


def test_another_column_is_asked_where_the_contracts_marks_no_negative_control(
    make_profiles: MakeProfiles,
) -> None:
    profiles = annotate(
        make_profiles(
            np.eye(4),
            Perturbation=["a", "b", "c", "d"],
            ControlType=[None, None, "poscon", None],
            pert_type=["trt", "control", "trt", "empty"],
        )
    )
    assert profiles.metadata["Metadata_ControlType"].to_list() == [None, "negcon", "poscon", "empty"]
    assert profiles.notes == ("negative controls are taken from Metadata_pert_type",)


@pytest.mark.parametrize("controls", [{}, {"ControlType": [None, None]}, {"control_type": ["trt", "trt"]}])
def test_a_table_may_mark_no_control_at_all(
    make_profiles: MakeProfiles, controls: dict[str, list[object]]
) -> None:
    profiles = annotate(make_profiles(np.eye(2), Perturbation=["a", "b"], **controls))
    assert profiles.metadata["Metadata_ControlType"].to_list() == [None, None]
    assert not profiles.is_control.any()


def test_a_control_without_a_name_gets_one(make_profiles: MakeProfiles) -> None:
    profiles = annotate(make_profiles(np.eye(2), JCP2022=["J1", None], control_type=[None, "negcon"]))
    assert profiles.metadata["Metadata_Perturbation"].to_list() == ["J1", "negcon"]


@pytest.mark.parametrize("control", ["Metadata_drug=DMSO", "drug=DMSO", "drug = DMSO"])
def test_controls_chosen_by_option_replace_those_marked(make_profiles: MakeProfiles, control: str) -> None:
    profiles = make_profiles(
        np.eye(3),
        Perturbation=["a", "b", "c"],
        drug=["DMSO", "x", "y"],
        ControlType=[None, "negcon", "poscon"],
    )
    assert annotate(profiles, control=control).metadata["Metadata_ControlType"].to_list() == [
        "negcon",
        None,
        "poscon",
    ]


@pytest.mark.parametrize("given", [{}, {"ControlType": ["", "poscon", None]}])
def test_the_first_wells_need_not_be_the_controls(
    make_profiles: MakeProfiles, given: dict[str, list[object]]
) -> None:
    made = make_profiles(np.eye(3), Perturbation=["a", "b", "DMSO"], **given)
    marked = annotate(made, control="Perturbation=DMSO")
    assert marked.is_control.tolist() == [False, False, True]
    assert marked.metadata["Metadata_ControlType"][1] == ("poscon" if given else None)


def test_any_column_can_name_the_perturbation(make_profiles: MakeProfiles) -> None:
    profiles = annotate(make_profiles(np.eye(2), Perturbation=["a", "b"], dose=[1, 2]), perturbation="dose")
    assert profiles.metadata["Metadata_Perturbation"].to_list() == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"perturbation": "absent"}, "no column absent"),
        ({"control": "DMSO"}, "is not COLUMN=VALUE"),
        ({"control": "absent=DMSO"}, "no column absent"),
        ({"control": "Perturbation=DMSO"}, "no well has Perturbation = DMSO"),
    ],
)
def test_an_option_that_fits_nothing_says_what_there_is(
    make_profiles: MakeProfiles, arguments: dict[str, str], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        annotate(make_profiles(np.eye(2), Perturbation=["a", "b"]), **arguments)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("targets", "Metadata_target"),
        ("TARGET_NAME", "Metadata_target_name"),
        ("dose", "Metadata_pert_dose"),
        ("zz", ""),
    ],
)
def test_a_wrong_column_is_answered_by_those_like_it(
    make_profiles: MakeProfiles, wrong: str, right: str
) -> None:
    columns = {name: ["a", "b"] for name in ("pert", "target", "target_name", "pert_dose")}
    with pytest.raises(InputError) as caught:
        annotate(make_profiles(np.eye(2), **columns), perturbation=wrong)
    question, mark, listed = caught.value.hint.rpartition("? ")
    assert (right in question) if right else not mark
    assert "Metadata_target_name" in listed


def test_a_control_spelt_in_the_wrong_case_is_answered_by_the_right_one(make_profiles: MakeProfiles) -> None:
    with pytest.raises(InputError) as caught:
        annotate(make_profiles(np.eye(2), Perturbation=["DMSO", "b"]), control="Perturbation=dmso")
    assert caught.value.hint.startswith("did you mean DMSO? ")


def test_a_table_that_names_no_perturbation_says_so(make_profiles: MakeProfiles) -> None:
    with pytest.raises(InputError, match="does not say what was done"):
        annotate(make_profiles(np.eye(2)))


def test_a_plate_map_brings_both(make_profiles: MakeProfiles, tmp_path: Path) -> None:
    platemap = tmp_path / "map.csv"
    platemap.write_text("well,perturbation,control_type\nA1,a,\nA02,DMSO,negcon\n")
    profiles = annotate(make_profiles(np.eye(2)), platemap=platemap)
    assert profiles.metadata["Metadata_Perturbation"].to_list() == ["a", "DMSO"]
    assert profiles.is_control.tolist() == [False, True]
