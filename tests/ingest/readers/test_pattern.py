"""The pattern compiler: what was formatted is parsed back, and mistakes are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from cellvim.config import IngestSettings
from cellvim.errors import InputError, UsageError
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.pattern import PatternReader, compile_pattern, match_path, where_it_stops
from cellvim.ingest.readers.pattern_hint import suggest_pattern
from cellvim.ingest.sources import Source
from cellvim.store import FieldKey, well_name

words = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=8)
separators = st.sampled_from(["_", "-", ".", "__"])


@given(
    st.permutations(["well", "field", "channel", "z", "t"]),
    separators,
    st.integers(1, 32),
    st.integers(1, 48),
    st.integers(0, 9999),
    words,
)
def test_a_formatted_name_is_parsed_back(
    order: list[str], separator: str, row: int, column: int, number: int, channel: str
) -> None:
    values = {"well": well_name(row, column), "field": number, "channel": channel, "z": 3, "t": 12}
    pattern = separator.join(f"{{{name}}}" for name in order) + ".tif"
    match = compile_pattern(pattern).fullmatch(pattern.format(**values).upper())
    assert match is not None
    assert {name: text.lower() for name, text in match.groupdict().items()} == {
        name: str(value).lower() for name, value in values.items()
    }


@given(st.text("{}abwellchannel/_.*+?[(\\", max_size=40), st.text("A01_w./tif(", max_size=40))
def test_any_pattern_compiles_or_is_refused(pattern: str, name: str) -> None:
    try:
        expression = compile_pattern(pattern)
    except UsageError:
        return
    expression.fullmatch(name)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{wel}_{channel}.tif", "unknown field {wel}"),
        ("{well_{channel}.tif", "brace without its partner"),
        ("{well}}.tif", "brace without its partner"),
        ("{channel}.tif", "does not tell the well"),
        ("{row}_{channel}.tif", "does not tell the well"),
        ("{well}" + "{}" * 30, "at most 24"),
    ],
)
def test_a_wrong_pattern_is_explained(pattern: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compile_pattern(pattern)


def test_literals_are_no_regular_expressions() -> None:
    assert compile_pattern("a.b(c)+{well}.tif").fullmatch("a.b(c)+A01.tif")
    assert not compile_pattern("a.b{well}.tif").fullmatch("axbA01.tif")


def test_a_field_named_twice_must_agree() -> None:
    pattern = "{plate}/{plate}_{well}.tif"
    expression = compile_pattern(pattern)
    assert match_path(expression, pattern, Path("deep/P1/P1_A01.tif"))
    assert not match_path(expression, pattern, Path("deep/P1/P2_A01.tif"))


@pytest.mark.parametrize("name", ["G01.tif", "AG01.tif", "A49.tif", "A00.tif"])
def test_wells_that_do_not_exist_do_not_match(name: str) -> None:
    is_well = name == "G01.tif"
    assert bool(compile_pattern("{well}.tif").fullmatch(name)) == is_well


@pytest.mark.parametrize("slash", ["/", "\\"])
def test_plates_come_from_folders(tmp_path: Path, slash: str) -> None:
    for name in ("P1/b3_1_DNA.TIF", "P1/b3_1_ER.tif", "P2/b3_1_DNA.tif", "P2/notes.txt", "P2/odd.tif"):
        path = tmp_path / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    settings = IngestSettings(
        sources=(tmp_path,), out=tmp_path, pattern="{plate}" + slash + "{well}_{field}_{channel}.tif"
    )
    first, second = PatternReader().read(Source(tmp_path), settings)
    assert (first.name, second.name) == ("P1", "P2")
    assert [(plane.field, plane.channel) for plane in first.planes] == [
        (FieldKey("B03", 1), "DNA"),
        (FieldKey("B03", 1), "ER"),
    ]
    assert first.evidence == "pattern {plate}/{well}_{field}_{channel}.tif: matches 3 of 4 files"


def test_no_match_shows_what_was_tried(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"image{number}.tif").touch()
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="{well}.tif")
    with pytest.raises(
        InputError,
        match=r"none of the 5 files .* image0.tif, image1.tif, image2.tif, \.\.\.; 'image0.tif' does not begin so",
    ):
        PatternReader().read(Source(tmp_path), settings)
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="{well}.png")
    with pytest.raises(InputError, match=r"holds no \*.png files; other images there: image0.tif"):
        PatternReader().read(Source(tmp_path), settings)


@pytest.mark.parametrize("pattern", ["{well}_{channel}.tif", "{well}_{channel}.TIFF", "{well}_{channel}"])
def test_every_spelling_of_the_ending(tmp_path: Path, pattern: str) -> None:
    for name in ("A01_a.tif", "A01_b.tiff", "A01_c.TIF", "AF48_d.Tiff", "A01_e.png"):
        (tmp_path / name).touch()
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern=pattern)
    (plate,) = PatternReader().read(Source(tmp_path), settings)
    assert [(plane.channel, str(plane.field)) for plane in plate.planes] == [
        *[("a", "A01/1"), ("b", "A01/1"), ("c", "A01/1")],
        ("d", "AF48/1"),
    ]


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        ("{row}{column}_s{field}", "aa07_S3.tif", {"row": "aa", "column": "07", "field": "3"}),
        ("{row}-{column}_{}", "32-48_x_y.tif", {"row": "32", "column": "48"}),
        ("{}_{well}.{}", "x_y_b-7.tiff", {"well": "b-7"}),
        ("{well}.{channel}", "P24.DNA.tif", {"well": "P24", "channel": "DNA"}),
        ("w{channel}/{well}", "w2/B1.tif", {"channel": "2", "well": "B1"}),
        ("s{field}_{well}", "3_B1.tif", None),
        ("{well}_s{field}", "B1_3.tif", None),
        ("{well}_{field}", "B1_x.tif", None),
        ("{plate}/{well}", "B1.tif", None),
    ],
)
def test_names_and_what_they_tell(pattern: str, name: str, groups: dict[str, str] | None) -> None:
    match = match_path(compile_pattern(pattern), pattern, Path(name))
    assert (None if match is None else match.groupdict()) == groups


@pytest.mark.parametrize(
    ("pattern", "path", "prefix", "expected"),
    [
        ("{well}_{field}_{channel}.tif", "A01_x_1.tif", "A01_", "{field}_"),
        ("{well}_{field}_{channel}.tif", "A01-1-1.tif", "A01", "_{field}"),
        ("{well}_{channel}_z{z}.tif", "A01_DNA_t3.tif", "A01_", "{channel}_z"),
        ("{plate}/{well}.tif", "x/P1/Z.tif", "P1/", "{well}.tif"),
        ("{well}.tif", "A01_1.tif", "A01", ".tif"),
        ("scan{well}.tif", "image.tif", "", "scan{well}"),
        ("{well}_01_s{field}.tif", "B7_01_3.tif", "B7_01_", "s{field}"),
        ("scan-{well}.tif", "SCAN_B7.tif", "SCAN", "-{well}"),
        ("{channel}_{well}.tif", "image.tif", "", "{channel}_"),
    ],
)
def test_where_a_pattern_stops(pattern: str, path: str, prefix: str, expected: str) -> None:
    tried, fits, missing = where_it_stops(pattern, Path(path))
    assert (fits, missing) == (prefix, expected)
    assert tried.startswith(prefix)


@pytest.mark.parametrize(
    ("template", "suggestion"),
    [
        ("{well}_01_{number}_{site}_{stain}_001.tif", "{well}_{}_{}_{field}_{channel}_{}.tif"),
        ("x-{well} s{site} w{number}.TIFF", "{}-{well} s{field} w{channel}.tif"),
        ("{stain}.{well}.{site}.tif", "{channel}.{well}.{field}.tif"),
        ("{row}_{column}_f{site}_ch{number}.tif", "{row}_{column}_f{field}_ch{channel}.tif"),
        ("{well}/{site}_{stain}.tif", None),
        ("P{site}/{well}_{stain}.tif", "{plate}/{well}_{channel}.tif"),
        ("{stain}_{site}.tif", None),
    ],
)
def test_a_guess_fits_all_names(template: str, suggestion: str | None) -> None:
    names = [
        template.format(well=f"{row}{column}", row=row, column=column, site=site, number=number, stain=stain)
        for row in "BG"
        for column in ("2", "11")
        for site in (1, 2, 3)
        for number, stain in enumerate(("DAPI", "GFP"), start=1)
    ]
    assert suggest_pattern([Path(name) for name in names]) == suggestion


def test_guesses_for_real_plates(shared: Path) -> None:
    """The guess is what a person wrote for the same folder."""
    for folder, pattern in (
        ("nf1_schwann/images", "{well}_{}_{}_{field}_{channel}_{}.tif"),
        ("bbbc013/images", "Channel{channel}-{}-{row}-{column}.tif"),
    ):
        names = [Path(path.name) for path in sorted((shared / "data" / folder).iterdir())]
        assert suggest_pattern(names) == pattern


@given(st.lists(st.text("AB12_.-sw", max_size=12), max_size=6))
def test_any_names_have_a_guess_or_none(names: list[str]) -> None:
    guess = suggest_pattern([Path(name + ".tif") for name in names])
    assert guess is None or compile_pattern(guess)


def test_an_unknown_folder_comes_with_a_guess(tmp_path: Path) -> None:
    for name in ("B7-1-DAPI.tif", "B7-1-GFP.tif", "C8-2-DAPI.tif", "C8-1-DAPI.tif"):
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        read_source(tmp_path, IngestSettings(sources=(tmp_path,), out=tmp_path))
    assert caught.value.hint == "describe the names: --pattern '{well}-{field}-{channel}.tif'"


def write_pages(path: Path, pages: int, **options: Any) -> np.ndarray:
    pixels = np.random.default_rng(pages).integers(1, 99, (pages, 8, 9)).astype(np.uint16)
    tifffile.imwrite(path, pixels if pages > 1 else pixels[0], photometric="minisblack", **options)
    return pixels


def test_pages_of_ome_tiff_are_planes(tmp_path: Path) -> None:
    """The name tells well and field, the pages channel and depth."""
    metadata = {"axes": "CZYX", "Channel": {"Name": ["DNA", "ER"]}}
    pixels = np.random.default_rng(0).integers(1, 99, (2, 3, 8, 9)).astype(np.uint16)
    for name in ("x7_03_02.ome.tif", "x7_03_04.ome.tif"):
        tifffile.imwrite(tmp_path / name, pixels, ome=True, metadata=metadata)
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="x{row}_{column}_{field}.ome.tif")
    (plate,) = PatternReader().read(Source(tmp_path), settings)
    assert {str(plane.field) for plane in plate.planes} == {"G03/2", "G03/4"}
    assert (len(plate.planes), plate.stains) == (12, {"1": "DNA", "2": "ER"})
    for plane in plate.planes:
        page = tifffile.imread(plane.path, key=plane.part[0])
        np.testing.assert_array_equal(page, pixels[int(plane.channel) - 1, plane.z])
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="x{row}_{column}_{channel}.ome.tif")
    with pytest.raises(InputError, match="holds 2 planes along C, and the pattern names one channel"):
        PatternReader().read(Source(tmp_path), settings)


@pytest.mark.parametrize("options", [{}, {"imagej": True, "metadata": {"axes": "CYX"}}])
def test_pages_that_nobody_explains_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    write_pages(tmp_path / "A01.tif", 3, **options)
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="{well}.tif")
    with pytest.raises(InputError, match=r"A01\.tif holds several pages, and no OME-XML") as caught:
        PatternReader().read(Source(tmp_path), settings)
    assert caught.value.hint == "write one plane per file, or OME-TIFF"
    write_pages(tmp_path / "A01.tif", 1)
    (plate,) = PatternReader().read(Source(tmp_path), settings)
    assert [plane.part for plane in plate.planes] == [()]
