"""Wells and names: every spelling comes in, one goes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.errors import InputError
from cellvim.store import FieldKey, parse_well, safe_name, well_name, well_position
from cellvim.store.naming import check_plate_name

rows, columns = st.integers(1, 32), st.integers(1, 48)


@given(rows, columns)
def test_a_well_survives_the_round_trip(row: int, column: int) -> None:
    assert well_position(well_name(row, column)) == (row, column)


@given(rows, columns, st.booleans(), st.sampled_from(["", "0", "00"]), st.sampled_from(["", "-", "_"]))
def test_every_spelling_means_the_same_well(
    row: int, column: int, is_lower: bool, zeros: str, separator: str
) -> None:
    name = well_name(row, column)
    spelling = f"{name[:-2]}{separator}{zeros}{column}"
    assert parse_well(spelling.lower() if is_lower else spelling) == name


@given(st.lists(st.tuples(rows, columns, st.integers(1, 20)), min_size=2))
def test_fields_sort_by_row_column_and_site(places: list[tuple[int, int, int]]) -> None:
    fields = sorted(FieldKey(well_name(row, column), site) for row, column, site in places)
    assert [(*well_position(field.well), field.site) for field in fields] == sorted(places)


@pytest.mark.parametrize(
    "text", ["", "A", "7", "A0", "A49", "A0001", "AG1", "BA1", "A123", "A1B", "../A1", "é1"]
)
def test_what_is_no_well_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a well"):
        parse_well(text)


@given(st.text(max_size=200))
def test_a_safe_name_never_leaves_its_folder(text: str) -> None:
    try:
        name = safe_name(text)
    except InputError:
        return
    assert "/" not in name
    assert not name.startswith(".")
    assert len(name) <= 120


def test_the_group_of_a_field_splits_its_well() -> None:
    assert FieldKey("AF48", 12).group == "AF/48/12"


@pytest.mark.parametrize(
    "name", ["plate 0", "BR00116991", "Müller (2), week 3", "a..b", "x" * 200, "1-2_3+4"]
)
def test_plates_of_other_programs_keep_their_names(name: str) -> None:
    assert check_plate_name(name, "here") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "-x",
        " x",
        "a\nb",
        "a\x00",
        "\ud800",
        "é" * 101,
        7,
        None,
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(InputError, match="no name of a file"):
        check_plate_name(name, "here")
