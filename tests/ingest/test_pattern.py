"""The pattern compiler: what was formatted is parsed back, and mistakes are named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.config import IngestSettings
from cellvim.errors import InputError, UsageError
from cellvim.ingest.pattern import PatternReader, compile_pattern, match_path
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
        InputError, match=r"none of the 5 files .* image0.tif, image1.tif, image2.tif, \.\.\."
    ):
        PatternReader().read(Source(tmp_path), settings)
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path, pattern="{well}.png")
    with pytest.raises(InputError, match=r"holds no \*.png files; other images there: image0.tif"):
        PatternReader().read(Source(tmp_path), settings)
