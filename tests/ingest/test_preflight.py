"""Whatever is wrong with a plate's files is said before anything is written; or while, if only pixels show it."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest import FieldsFailedError, ingest_plates
from cellvim.ingest.fields import FieldFailedError
from cellvim.store import FieldKey, PlateReader, verify_plate

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]
FIRST = "P_A01_s1_w1.tif"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 9)


def fill_with_zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replace_by_page(path: Path) -> None:
    path.write_text("<?xml version='1.0'?><Error>AccessDenied</Error>")


def replace_by_other(**changes: object) -> Callable[[Path], None]:
    options = {"shape": (40, 50), "dtype": "uint16"} | changes
    return lambda path: tifffile.imwrite(path, np.ones(**options))


HEADER_DAMAGE = {
    "truncated": (truncate, "is truncated"),
    "zero-filled": (fill_with_zeros, "is filled with zeros"),
    "page": (replace_by_page, "is a text page, not a TIFF"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "odd-sized": (replace_by_other(shape=(30, 50)), "is 50 x 30 pixels, the others 50 x 40"),
    "stray dtype": (replace_by_other(dtype="float32"), "holds float32, the other planes uint16"),
    "stray bytes": (replace_by_other(dtype="uint8"), "holds uint8, the other planes uint16"),
    "missing": (Path.unlink, "is missing"),
}


@pytest.mark.parametrize("kind", HEADER_DAMAGE)
def test_damage_in_the_header_stops_before_writing(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, message = HEADER_DAMAGE[kind]
    damage(write_images() / FIRST)
    with pytest.raises(PreflightError, match=rf"A01/1 w1: .*{message}") as caught:
        ingest_plates(make_settings())
    assert caught.value.exit_code == 3
    assert len(caught.value.problems) == 1
    assert not make_settings().out.exists()


@pytest.mark.parametrize("kind", HEADER_DAMAGE)
def test_damaged_fields_can_be_skipped_or_filled(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, message = HEADER_DAMAGE[kind]
    damage(write_images() / FIRST)
    (skipped,) = ingest_plates(make_settings(on_missing="skip-field")).plates
    assert (skipped.wells, skipped.fields) == (2, 3)
    assert list(skipped.skipped) == ["A01/1"]
    assert f"skipped: A01/1: {skipped.skipped['A01/1']}" in "\n".join(skipped.lines())
    assert message in skipped.skipped["A01/1"]
    assert PlateReader(skipped.path).skipped == {}
    (filled,) = ingest_plates(make_settings(on_missing="fill", overwrite=True)).plates
    plate, key = PlateReader(filled.path), FieldKey("A01", 1)
    assert list(filled.filled) == ["A01/1"]
    assert list(plate.is_valid(key)) == [False, True]
    assert not plate.read_field(key)[0].any()
    assert plate.intensity.percentiles["w1"]["0.1"] >= 1
    assert verify_plate(filled.path) == []


def test_doubled_planes_are_refused(write_images: WriteImages, make_settings: MakeSettings) -> None:
    folder = write_images()
    (folder / FIRST).with_suffix(".TIFF").write_bytes((folder / FIRST).read_bytes())
    with pytest.raises(PreflightError, match=r"has 2 files for one plane: P_A01_s1_w1.TIFF, P_A01_s1_w1.tif"):
        ingest_plates(make_settings())
    with pytest.raises(PreflightError, match=r"A01/1 1: has \d files for one plane"):
        ingest_plates(make_settings(pattern="{}_{well}_{}.tif"))


def test_all_problems_are_in_a_dry_run(write_images: WriteImages, make_settings: MakeSettings) -> None:
    folder = write_images(wells=tuple(f"A{column:02d}" for column in range(1, 9)))
    for path in sorted(folder.iterdir())[::2]:
        truncate(path)
    summary = ingest_plates(make_settings(dry_run=True))
    (plate,) = summary.plates
    assert summary.is_dry_run
    assert str(summary).count("problem: ") == 16
    assert "--on-missing skip-field would leave 16 of 16 fields out" in str(summary)
    assert len(plate.problems) == 16
    assert not make_settings().out.exists()
    with pytest.raises(PreflightError, match="nothing was written: 16 problems, first: A01/1 w1") as caught:
        ingest_plates(make_settings())
    assert caught.value.details[-1] == "... and 4 more (all of them with --dry-run --json)"
    assert len(caught.value.details) == 13
    with pytest.raises(InputError, match="none of its 16 fields is usable"):
        ingest_plates(make_settings(on_missing="skip-field"))


def test_wells_that_only_the_plan_names_are_reported(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    folder = write_images(sites=2)
    (folder / "P_B02_s2_w1.tif").unlink()
    (folder / "P_B02_s2_w2.tif").unlink()
    plan = '"HTSInfoFile", Version 1.0\n"WellsSelection1", TRUE, FALSE, TRUE\n"WaveName1", "DNA"\n'
    (folder / "P.HTD").write_text(plan)
    (result,) = ingest_plates(make_settings()).plates
    assert result.channels == ("DNA", "w2")
    assert PlateReader(result.path).skipped == {"A03": "named by the source's plan, but has no images"}
    assert result.warnings[-1] == "1 well(s) have fewer than 2 fields: B02 (1)"


def damage_pixels(path: Path) -> None:
    """Break the compressed stream and leave the header whole."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        start, length = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start + 20 : start + length - 20] = b"\x55" * (length - 40)
    path.write_bytes(content)


PIXEL_DAMAGE = {
    "stream": (damage_pixels, "cannot be decoded"),
    "zeros": (lambda path: tifffile.imwrite(path, np.zeros((40, 50), np.uint16)), "every pixel is zero"),
}


@pytest.mark.parametrize("kind", PIXEL_DAMAGE)
def test_damage_that_only_pixels_show_stops_and_keeps_the_rest(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, message = PIXEL_DAMAGE[kind]
    path = write_images() / "P_B02_s2_w2.tif"
    good = path.read_bytes()
    damage(path)
    with pytest.raises(FieldFailedError, match=rf"field B02/2: w2: P_B02_s2_w2.tif .*{message}"):
        ingest_plates(make_settings(workers=1))
    path.write_bytes(good)
    (result,) = ingest_plates(make_settings()).plates
    assert (result.fields, result.was_resumed) == (4, True)


@pytest.mark.parametrize("kind", PIXEL_DAMAGE)
def test_damage_that_only_pixels_show_is_skipped_with_exit_code_one(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, message = PIXEL_DAMAGE[kind]
    damage(write_images() / FIRST)
    for _ in range(2):
        with pytest.raises(FieldsFailedError, match="1 field") as caught:
            ingest_plates(make_settings(on_missing="skip-field"))
        assert caught.value.exit_code == 1
        (result,) = caught.value.summary.plates
        assert message in result.failed["A01/1"]
        assert len(PlateReader(result.path).fields) == 3
        assert verify_plate(result.path) == []


@pytest.mark.parametrize("kind", PIXEL_DAMAGE)
def test_damage_that_only_pixels_show_is_filled(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, message = PIXEL_DAMAGE[kind]
    damage(write_images() / FIRST)
    with pytest.raises(FieldFailedError):
        ingest_plates(make_settings())
    (result,) = ingest_plates(make_settings(on_missing="fill")).plates
    assert message in result.filled["A01/1"]
    assert list(PlateReader(result.path).is_valid(FieldKey("A01", 1))) == [False, True]
    (again,) = ingest_plates(make_settings(on_missing="fill")).plates
    assert (again.was_resumed, list(again.filled)) == (True, ["A01/1"])


def test_a_channel_without_any_good_plane_is_refused(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    for path in write_images().glob("*_w1.tif"):
        damage_pixels(path)
    with pytest.raises(InputError, match="channel w1 has no valid plane"):
        ingest_plates(make_settings(on_missing="fill"))


def test_a_source_that_cannot_be_read_is_named(
    write_images: WriteImages, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images()
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == FIRST:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(FieldFailedError, match=f"{FIRST} cannot be read: Permission denied"):
        ingest_plates(make_settings())
