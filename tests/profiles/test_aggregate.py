"""From crops and fields to wells: every field counts the same, and order does not matter."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.errors import InputError
from cellvim.profiles import Profiles, aggregate

MakeProfiles = Callable[..., Profiles]


def test_every_field_counts_the_same_however_many_crops_it_has(make_profiles: MakeProfiles) -> None:
    # Field 1 has three crops of value 0, field 2 one crop of value 8.
    profiles = make_profiles(
        np.array([[0.0], [0.0], [0.0], [8.0]]),
        Well=["B02"] * 4,
        Site=[1, 1, 1, 2],
        CropTop=[0, 0, 8, 0],
        CropLeft=[0, 8, 0, 0],
        Perturbation=["x"] * 4,
    )
    well = aggregate(profiles)
    assert well.features.tolist() == [[4.0]]
    assert well.metadata.columns == [
        "Metadata_Plate",
        "Metadata_Well",
        "Metadata_Perturbation",
        "Metadata_FieldCount",
    ]
    assert well.metadata["Metadata_FieldCount"].to_list() == [2]


@pytest.mark.parametrize("field", ["Site", "Field", "ImageNumber"])
def test_cells_are_no_fields(make_profiles: MakeProfiles, field: str) -> None:
    """Three cells of value 0 in one field, one of value 8 in another: two fields of equal weight."""
    cells = {"Well": ["B02"] * 4, "ObjectNumber": [1, 2, 3, 1], field: [1, 1, 1, 2]}
    well = aggregate(make_profiles(np.array([[0.0], [0.0], [0.0], [8.0]]), **cells))
    assert well.features.tolist() == [[4.0]]
    assert well.metadata["Metadata_FieldCount"].to_list() == [2]


def test_without_a_field_column_no_fields_are_counted(make_profiles: MakeProfiles) -> None:
    well = aggregate(make_profiles(np.eye(3), Well=["B02"] * 3, ObjectNumber=[1, 2, 3]))
    assert well.metadata.columns == ["Metadata_Plate", "Metadata_Well"]


def test_median(make_profiles: MakeProfiles) -> None:
    profiles = make_profiles(np.array([[0.0], [1.0], [50.0]]), Well=["A01"] * 3, Site=[1, 2, 3])
    assert aggregate(profiles, "median").features.tolist() == [[1.0]]


@given(order=st.permutations(range(12)))
def test_order_of_rows_does_not_matter(make_profiles: MakeProfiles, order: list[int]) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(12, 3))
    wells = ["A01", "B01", "AA01", "Z24"] * 3
    sites = [1] * 4 + [2] * 4 + [3] * 4
    expected = aggregate(make_profiles(features, Well=wells, Site=sites))
    shuffled = make_profiles(features[order], Well=[wells[i] for i in order], Site=[sites[i] for i in order])
    result = aggregate(shuffled)

    assert result.metadata.equals(expected.metadata)
    np.testing.assert_array_equal(result.features, expected.features)
    assert expected.metadata["Metadata_Well"].to_list() == ["A01", "B01", "Z24", "AA01"]


def test_equal_fields_average_to_exactly_themselves(make_profiles: MakeProfiles) -> None:
    value = np.float32(0.1)
    profiles = make_profiles(np.full((7, 1), value), Well=["A01"] * 7, Site=list(range(7)))
    assert aggregate(profiles).features[0, 0] == value


def test_metadata_that_differ_within_a_well_are_dropped(make_profiles: MakeProfiles) -> None:
    profiles = make_profiles(
        np.zeros((2, 1)), Well=["A01"] * 2, Site=[1, 2], Focus=[0.1, 0.2], Moa=["m", "m"]
    )
    columns = aggregate(profiles).metadata.columns
    assert "Metadata_Focus" not in columns
    assert "Metadata_Moa" in columns


def test_a_well_table_passes_through(make_profiles: MakeProfiles) -> None:
    profiles = make_profiles(np.eye(3), FieldCount=[9, 9, 8])
    result = aggregate(profiles)
    assert result.metadata.equals(profiles.metadata)
    np.testing.assert_array_equal(result.features, profiles.features)


@pytest.mark.parametrize("extra", [{}, {"Site": [1, 1]}])
def test_two_rows_for_one_unit_are_refused(
    make_profiles: MakeProfiles, extra: dict[str, list[object]]
) -> None:
    with pytest.raises(InputError, match="stand for the same"):
        aggregate(make_profiles(np.zeros((2, 1)), Well=["A01", "A01"], **extra))


def test_the_same_well_of_two_plates_is_two_wells(make_profiles: MakeProfiles) -> None:
    result = aggregate(make_profiles(np.eye(2), Well=["A01", "A01"], Plate=["Q", "P"]))
    assert result.metadata["Metadata_Plate"].to_list() == ["P", "Q"]
    assert isinstance(result.metadata, pl.DataFrame)


@pytest.mark.parametrize("average", ["mean", "median"])
def test_objects_are_averaged_to_fields_and_fields_to_wells(
    make_profiles: MakeProfiles, average: str
) -> None:
    """By a plain loop, with fields of 1 to 6 objects; averaging all objects of a well at once would differ."""
    rng = np.random.default_rng(4)
    counts = {("A01", 1): 6, ("A01", 2): 1, ("A01", 3): 3, ("B05", 1): 2, ("B05", 7): 5}
    rows = [(well, site, number) for (well, site), count in counts.items() for number in range(1, count + 1)]
    features = rng.normal(size=(len(rows), 3)).astype(np.float32)
    wells, sites, numbers = (list(column) for column in zip(*rows, strict=True))
    result = aggregate(make_profiles(features, Well=wells, Site=sites, ObjectNumber=numbers), average)

    of = np.mean if average == "mean" else np.median
    pooled = []
    for index, well in enumerate(("A01", "B05")):
        fields = [
            of(features[[row[:2] == (well, site) for row in rows]], axis=0)
            for site in sorted({site for name, site, _ in rows if name == well})
        ]
        np.testing.assert_allclose(result.features[index], of(fields, axis=0), rtol=1e-5, atol=1e-6)
        pooled.append(of(features[[row[0] == well for row in rows]], axis=0))
    assert not np.allclose(result.features, pooled, atol=1e-3)
    assert result.metadata["Metadata_FieldCount"].to_list() == [3, 2]
    assert "Metadata_ObjectNumber" not in result.metadata.columns


def test_objects_without_a_field_count_alike(make_profiles: MakeProfiles) -> None:
    columns = {"Well": ["A01"] * 3 + ["A02"], "ObjectNumber": [1, 2, 3, 1]}
    result = aggregate(make_profiles(np.array([[1.0], [2.0], [6.0], [4.0]]), **columns))
    assert result.features.tolist() == [[3.0], [4.0]]


def test_a_value_that_is_none_is_never_passed_over_in_silence(make_profiles: MakeProfiles) -> None:
    """Tables are read without such values; one made in memory keeps them, where a mean of the rest would hide them."""
    values = np.array([[1.0, np.nan], [3.0, 2.0], [5.0, 2.0]])
    profiles = make_profiles(values, Well=["A01", "A01", "A02"], Site=[1, 2, 1])
    for average in ("mean", "median"):
        np.testing.assert_array_equal(aggregate(profiles, average).features, [[2.0, np.nan], [5.0, 2.0]])


def test_many_wells_are_averaged_as_few_are(make_profiles: MakeProfiles) -> None:
    """More wells than are worked on at the same time, each with 1 to 3 fields."""
    rng = np.random.default_rng(6)
    rows = [
        (plate, row, site)
        for plate in range(30)
        for row in range(16)
        for site in range(1 + (row + plate) % 3)
    ]
    features = rng.normal(size=(len(rows), 2)).astype(np.float32)
    plates = [f"P{plate:02}" for plate, _, _ in rows]
    wells = [f"{'ABCDEFGHIJKLMNOP'[row]}01" for _, row, _ in rows]
    result = aggregate(make_profiles(features, Plate=plates, Well=wells, Site=[site for *_, site in rows]))
    keys = list(dict.fromkeys(zip(plates, wells, strict=True)))
    of_well = {key: [] for key in keys}
    for key, values in zip(zip(plates, wells, strict=True), features, strict=True):
        of_well[key].append(values)
    assert list(result.metadata.select("Metadata_Plate", "Metadata_Well").rows()) == keys
    np.testing.assert_allclose(
        result.features, [np.mean(of_well[key], axis=0) for key in keys], rtol=1e-5, atol=1e-6
    )
