"""Info: what a plate is, in 80 columns, and the plate itself as a picture."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cellvim.cli.glance import glance, plate_picture
from cellvim.cli.looking import info
from cellvim.errors import InputError, SomeFailedError
from cellvim.ingest.checking.foreign import describe_any
from cellvim.store import describe_plate, parse_well, verify_plate, well_name
from cellvim.store.verification import Verification
from tests.ingest.readers.foreign_plates import Style, ingest_one, name_images, random_5d, styles, write_plate


def facts(wells: Mapping[str, int], **changes: Any) -> dict[str, Any]:
    """Facts with so many fields in each well."""
    nothing: dict[str, Any] = {
        "skipped": {},
        "filled": {},
        "wavelengths": {},
        "percentiles": {},
        "channels": ["DNA"],
    }
    return nothing | {"fields_per_well": dict(wells)} | changes


def plate_of(rows: int, columns: int) -> dict[str, int]:
    return {well_name(row, column): 4 for row in range(1, rows + 1) for column in range(1, columns + 1)}


def rows_of(picture: list[str]) -> dict[str, str]:
    """Name of a row to its wells' characters, without the spaces between."""
    lines = [line.split() for line in picture if line[:4].strip().isalpha()]
    return {name: "".join(marks) for name, *marks in lines}


def test_a_real_plate_at_a_glance(real_plates: dict[str, Path]) -> None:
    found = describe_plate(real_plates["1049"])
    assert found["perturbations"] == 20
    assert found["controls"] == {"empty": 2, "negcon": 6, "poscon": 4}
    assert found["source"].startswith("pattern Channel{channel}")
    assert found["codec"] == "zstd"
    picture = plate_picture(found)
    rows = rows_of(picture)
    assert rows == {row: ("#" if row in "ABEF" else ".") * 12 for row in "ABCDEFGH"}
    assert "# all fields (48)   . no images (48)" in picture[-1]
    lines = glance(found)
    assert lines[0] == "1049"
    assert "  images        48 wells, 48 fields of 640 x 640 px, uint8" in lines
    assert "  pixel size    not known" in lines
    percentiles = found["percentiles"]["DNA"]
    assert lines[-1].split() == [
        "DNA",
        *(f"{percentiles[key]:g}" for key in ("0.1", "1", "50", "99", "99.9")),
    ]


def test_every_real_plate_fits_the_terminal(real_plates: dict[str, Path]) -> None:
    for path in real_plates.values():
        found = describe_plate(path)
        assert json.loads(json.dumps(found)) == found
        assert all(len(line) <= 80 for line in (*glance(found), *plate_picture(found)))


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (4, 6), (8, 12), (16, 24), (32, 48)])
def test_every_format_fits_in_80_columns(rows: int, columns: int) -> None:
    picture = plate_picture(facts(plate_of(rows, columns)))
    assert max(map(len, picture)) <= 80
    found = rows_of(picture)
    assert len(found) == rows
    assert set(found.values()) == {"#" * columns}
    assert [parse_well(f"{row}1")[:-2] for row in found] == list(found)


def test_the_smallest_plate_that_holds_the_wells_is_drawn() -> None:
    assert rows_of(plate_picture(facts({"A01": 1, "D12": 1}))).keys() == set("ABCDEFGH")
    assert rows_of(plate_picture(facts({"A01": 1, "D13": 1}))).keys() == set("ABCDEFGHIJKLMNOP")
    assert len(rows_of(plate_picture(facts({"Q01": 1})))) == 32
    assert plate_picture(facts({})) == []


def test_each_well_has_the_character_of_its_state() -> None:
    found = facts(
        {"A01": 4, "A02": 3, "A03": 4, "B01": 4},
        skipped={"B02": "no images", "A02/4": "damaged", "B03": "no images"},
        filled={"A03/1": ["DNA"]},
    )
    picture = plate_picture(found)
    assert rows_of(picture) == {"A": "#+f", "B": "#xx"}
    legend = " ".join(picture[-2:])
    for entry in ("# all fields (2)", "+ fewer fields (1)", "f filled planes (1)", "x skipped (2)"):
        assert entry in legend
    assert "no images (" not in legend


def test_a_foreign_plate_gives_what_there_is(tmp_path: Path) -> None:
    fields = {"A/1/0": random_5d(1, 2, 3), "A/1/1": random_5d(1, 2, 3), "B/2/0": random_5d(1, 2, 3)}
    folder = write_plate(tmp_path / "P.zarr", fields, styles()["iohub"], labels=("DNA", "ER"))
    (found,) = describe_any(folder)
    assert (found["name"], found["wells"], found["fields"]) == ("Screen_1", 2, 3)
    assert (found["channels"], found["dtype"], found["pixel_size_um"]) == (["DNA", "ER"], "uint16", 0.325)
    assert found["shapes_px"] == [(40, 50)]
    assert found["notes"] == ["3 z planes"]
    assert rows_of(plate_picture(found)) == {"A": "#..", "B": ".+."}
    assert any("40" in line and "uint16" in line for line in glance(found))


def test_skipped_and_filled_are_shown(tmp_path: Path) -> None:
    fields = {f"A/{column}/{site}": random_5d(1, 2, 1) for column in (1, 2, 3) for site in (0, 1)}
    folder = write_plate(tmp_path / "P.zarr", fields, Style(), labels=("DNA", "ER"))
    (folder / "A/1/0/0/0.0.0.0").unlink()
    shutil.rmtree(folder / "A/3")
    name_images(folder / "A/2", [{"path": "0"}])
    plate = ingest_one(folder, on_missing="fill")
    found = describe_plate(plate.path)
    assert found["filled"] == {"A01/0": ["DNA"]}
    assert rows_of(plate_picture(found))["A"] == "f+x"
    lines = "\n".join(glance(found))
    assert "filled        A01/0: DNA" in lines
    assert "skipped       A03: named by the source's plan" in lines


def test_names_cannot_command_the_terminal() -> None:
    found = facts({"A01": 1}, channels=["\x1b[31mred"], name="\x1b]0;x\x07", path="p", shapes_px=[[1, 1]])
    found |= {
        "wells": 1,
        "fields": 1,
        "dtype": "uint8",
        "pixel_size_um": None,
        "bytes": 1,
        "platemap_columns": [],
    }
    assert "\x1b" not in "\n".join(glance(found))


@pytest.mark.parametrize("name", ["run.json", "plate.json", "fields/B02-1.json", "intensity.json"])
def test_a_damaged_companion_is_one_clear_error(name: str, make_plate: Any) -> None:
    path = make_plate("P1").path
    damaged = path.with_name("P1.cellvim") / name
    for content in (b"", b"{}", b"[]", b"\xff", b'{"facts": 3}'):
        damaged.write_bytes(content)
        with pytest.raises(InputError):
            describe_plate(path)


def test_colours_only_on_a_terminal(tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    command = [sys.executable, "-m", "cellvim", "info", str(folder)]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in plain
    assert "A   #  .  ." in plain
    reader, writer = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, stdout=writer, check=True, env=environment)
    os.close(writer)
    coloured = os.read(reader, 100_000).decode()
    assert "\x1b[1mScreen_1" in coloured
    assert "\x1b[32m#" in coloured


def test_one_broken_plate_does_not_hide_the_others(
    make_plate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [make_plate(name).path for name in ("P1", "P2")]
    (paths[0] / "zarr.json").unlink()
    with pytest.raises(
        SomeFailedError, match=r"1 of 2 plates cannot be shown: .*P1\.ome\.zarr is not finished"
    ):
        info(paths)
    assert capsys.readouterr().out.startswith("P2\n")
    with pytest.raises(InputError, match="is not finished"):
        info(paths[:1])


@pytest.mark.parametrize(("use", "said"), [("on-read", "on reading"), ("baked", "in the stored pixels")])
def test_corrected_illumination_is_told_in_words(use: str, said: str, tmp_path: Path) -> None:
    folder = write_plate(tmp_path / "P.zarr", {"A/1/0": random_5d(1, 1, 1)}, Style())
    found = describe_plate(ingest_one(folder, illumination=use).path)
    assert found["illumination"] == use
    assert f"  illumination  corrected {said}" in glance(found)


def test_files_beside_the_records_are_none_and_records_of_no_field_are_damage(make_plate: Any) -> None:
    path = make_plate("P1").path
    fields = path.with_name("P1.cellvim") / "fields"
    for name in ("._B02-1.json", "notes.json"):
        (fields / name).write_bytes(b"\xff")
    found = describe_plate(path)
    assert verify_plate(path) == []
    (fields / "C09-7.json").write_text("{}")
    assert describe_plate(path) == found
    assert verify_plate(path) == ["P1.cellvim/fields/C09-7.json was not written by ingest"]


def test_of_many_problems_a_person_sees_the_first() -> None:
    lines = Verification(problems=[str(number) for number in range(1000)]).lines(is_quick=False)
    assert lines[:20] == [str(number) for number in range(20)]
    assert lines[20] == "... and 980 more problems: all of them with --json"
    assert len(lines) == 22
