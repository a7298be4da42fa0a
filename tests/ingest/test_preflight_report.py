"""The report before anything is written: one page for people, every field for machines, the exit code for scripts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import DiskError, InputError, KeyboardStop
from cellvim.ingest import estimate as estimating
from cellvim.ingest import headers, ingest_plates
from cellvim.ingest.planes import ChannelPlan, FieldPlan
from cellvim.ingest.preflight_report import draw_plate
from cellvim.store import FieldKey, well_name

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]
Run = Callable[..., tuple[int, str, str]]


def spoil(folder: Path) -> None:
    """Of 4 wells with 2 sites and 2 channels: one plane of each kind of problem."""
    (folder / "P_A01_s1_w1.tif").unlink()
    os.truncate(folder / "P_A02_s1_w2.tif", 100)
    tifffile.imwrite(folder / "P_A03_s2_w1.tif", np.ones((20, 50), np.uint16))
    shutil.copyfile(folder / "P_A04_s1_w1.tif", folder / "P_A04_s1_w1.TIFF")


WELLS = ("A01", "A02", "A03", "A04", "B12")


def test_a_clean_plate(write_images: WriteImages, ingest: Run, tmp_path: Path) -> None:
    folder = write_images(wells=WELLS)
    code, out, err = ingest("--dry-run")
    assert code == 0
    assert "error" not in err
    size = sum(path.stat().st_size for path in folder.iterdir())
    for line in (
        "ImageXpress: found names such as P_A01_s1_w1.tif",
        "5 wells, 10 fields, 20 files",
        "50 x 40 pixels, uint16",
        "channel 1  w1",
        "   A   #  #  #  #  .  .  .  .  .  .  .  .",
        "   B   .  .  .  .  .  .  .  .  .  .  .  #",
        "20 planes: 20 complete",
        f"in: {size / 1e6:.1f} MB of images",
        "2 workers, by trying 20 planes",
        "free: ",
    ):
        assert line in out
    assert "--on-missing" not in out
    assert not (tmp_path / "out").exists()


def test_every_kind_of_problem_is_counted_drawn_and_named(write_images: WriteImages, ingest: Run) -> None:
    spoil(write_images(wells=WELLS))
    code, out, err = ingest("--dry-run")
    assert code == 3
    assert err.endswith(
        "error: 1 of 1 plates would be refused: P\n"
        "hint: repair the files, or go on with --on-missing skip-field (or fill)\n"
    )
    assert "   A   -  !  ~  2  .  .  .  .  .  .  .  ." in out
    assert "# complete   - missing   ~ odd   2 doubled   ! damaged   . no images" in out
    assert "20 planes: 16 complete, 1 missing, 1 odd, 1 doubled, 1 damaged" in out
    problems = [line.strip() for line in out.splitlines() if line.startswith("  problem: ")]
    assert [line.split(": ")[1] for line in problems] == ["A02/1 w2", "A04/1 w1", "A03/2 w1", "A01/1 w1"]
    assert "--on-missing skip-field would leave 4 of 10 fields out" in out
    assert "--on-missing fill would fill 4 planes with zeros, marked invalid\n" in out


def test_what_a_policy_is_said_to_do_is_what_it_does(
    write_images: WriteImages, make_settings: MakeSettings, ingest: Run, tmp_path: Path
) -> None:
    folder = write_images(wells=WELLS)
    spoil(folder)
    # A field of which nothing is left.
    os.truncate(folder / "P_A02_s1_w1.tif", 100)
    policies = json.loads(ingest("--dry-run", "--json")[1])["plates"][0]["policies"]
    for policy, foreseen in policies.items():
        (result,) = ingest_plates(make_settings(on_missing=policy, out=tmp_path / policy)).plates
        filled = sum(why.count(";") + 1 for why in result.filled.values())
        assert foreseen == {"fields_left_out": len(result.skipped), "planes_filled": filled}
    assert policies["fill"] == {"fields_left_out": 1, "planes_filled": 3}
    assert ingest("--dry-run", "--on-missing", "fill")[0] == 0


def test_json_is_one_object_with_every_field_and_file(write_images: WriteImages, ingest: Run) -> None:
    folder = write_images(wells=WELLS)
    spoil(folder)
    code, out, _ = ingest("--dry-run", "--json")
    assert code == 3
    content = json.loads(out)
    assert content["is_dry_run"]
    (plate,) = content["plates"]
    named = [
        file for field in plate["fields"] for part in field["channels"].values() for file in part["files"]
    ]
    assert sorted(named) == sorted(path.name for path in folder.iterdir())
    by_state = plate["counts"]["planes_by_state"]
    assert by_state == {"complete": 16, "missing": 1, "odd": 1, "doubled": 1, "damaged": 1}
    states = [part["state"] for field in plate["fields"] for part in field["channels"].values()]
    assert by_state == {state: states.count(state) for state in by_state}
    first = plate["fields"][0]
    assert (first["well"], first["site"], first["state"]) == ("A01", 1, "missing")
    assert first["channels"]["w1"] == {"state": "missing", "files": [], "problem": "is missing"}
    assert plate["bytes_in"] > 0
    assert plate["estimate"]["bytes_out"] > 0
    assert plate["free_bytes"] > 0


def test_lines_are_capped_on_screen_and_complete_in_json(write_images: WriteImages, ingest: Run) -> None:
    for path in list(write_images(wells=WELLS, sites=9).iterdir())[1:]:
        path.write_bytes(b"")
    _, out, _ = ingest("--dry-run")
    assert out.count("problem: ") == 20
    assert "... and 69 more problem lines: all of them with --json" in out
    assert len(json.loads(ingest("--dry-run", "--json")[1])["plates"][0]["problems"]) == 89


@pytest.mark.parametrize(("rows", "columns"), [(8, 12), (16, 24), (32, 48)])
def test_the_picture_has_every_well_and_fits_the_screen(rows: int, columns: int) -> None:
    wells = [well_name(row, column) for row in range(1, rows + 1) for column in range(1, columns + 1)]
    plans = [FieldPlan(FieldKey(well, 1), (ChannelPlan("1", ()),)) for well in wells]
    bad = FieldPlan(FieldKey(wells[-1], 2), (ChannelPlan("1", (), "is missing", "missing"),))
    picture = draw_plate([*plans, bad])
    assert max(len(f"  {line}") for line in picture) <= 80
    assert len(picture) == rows + 2
    assert sum(line[3:].count("#") for line in picture[1:-1]) == rows * columns - 1
    assert picture[rows].endswith("-")


def test_the_report_does_not_depend_on_workers(
    write_images: WriteImages, ingest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "BATCH", 3)
    spoil(write_images(wells=WELLS))
    reports = []
    for workers in ("1", "8"):
        (plate,) = json.loads(ingest("--dry-run", "--json", "--workers", workers)[1])["plates"]
        plate["estimate"] = plate["estimate"]["bytes_out"]
        plate.pop("free_bytes")
        reports.append(plate)
    assert reports[0] == reports[1]


def test_names_from_strangers_do_not_steer_the_terminal(write_images: WriteImages, ingest: Run) -> None:
    folder = write_images()
    (folder / "P.HTD").write_bytes(b'"HTSInfoFile", 1\r\n"WaveName1", "DAPI\x1b[2J\x07"\r\n')
    _, out, _ = ingest("--dry-run")
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "channel 1  DAPI [2J" in out


def test_the_estimate_is_near_what_is_written(write_images: WriteImages, make_settings: MakeSettings) -> None:
    write_images(shape=(300, 400))
    for codec in ("zstd", "lz4"):
        settings = make_settings(codec=codec, overwrite=True)
        (foreseen,) = ingest_plates(settings.model_copy(update={"dry_run": True})).plates
        (written,) = ingest_plates(settings).plates
        assert foreseen.report is not None
        assert foreseen.report.guess is not None
        assert foreseen.report.guess.bytes_out == pytest.approx(written.bytes_out, rel=0.1)


def test_damage_that_only_pixels_show_is_told_if_it_is_met(write_images: WriteImages, ingest: Run) -> None:
    folder = write_images(wells=("A01",), sites=1)
    tifffile.imwrite(folder / "P_A01_s1_w2.tif", np.zeros((40, 50), np.uint16))
    assert "note: found by trying it: P_A01_s1_w2.tif every pixel is zero" in ingest("--dry-run")[1]


def with_free_space(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(estimating, "free_bytes", lambda _: free)
    monkeypatch.setattr("cellvim.ingest.preflight_report.free_bytes", lambda _: free)


def test_a_disk_that_is_clearly_too_small_is_refused_before_writing(
    write_images: WriteImages, make_settings: MakeSettings, ingest: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images()
    (foreseen,) = ingest_plates(make_settings(dry_run=True)).plates
    assert foreseen.report is not None
    assert foreseen.report.guess is not None
    needed = foreseen.report.guess.bytes_out
    with_free_space(monkeypatch, needed // 2)
    with pytest.raises(DiskError, match="of room; the plates will need about") as caught:
        ingest_plates(make_settings())
    assert caught.value.exit_code == 5
    assert not make_settings().out.exists()
    code, out, _ = ingest("--dry-run")
    assert code == 0
    assert "TOO LITTLE" in out
    # An estimate may be wrong by as much: the disk itself has the last word.
    with_free_space(monkeypatch, needed * 9 // 10)
    assert ingest_plates(make_settings()).plates[0].fields == 4
    # What is written already needs no room.
    with_free_space(monkeypatch, needed // 10)
    assert ingest_plates(make_settings()).plates[0].was_resumed


def test_free_space_is_that_of_the_nearest_folder(tmp_path: Path) -> None:
    expected = shutil.disk_usage(tmp_path).total
    assert 0 < (estimating.free_bytes(tmp_path / "not" / "there") or 0) <= expected
    assert estimating.free_bytes("memory://plates") is None


def test_a_stop_by_the_keyboard_ends_a_dry_run_at_once(
    write_images: WriteImages, ingest: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_images(wells=WELLS, sites=9)
    monkeypatch.setattr(headers, "BATCH", 1)
    seen: list[Any] = []

    def stop(batch: Any) -> list[Any]:
        seen.append(batch)
        raise KeyboardStop

    monkeypatch.setattr(headers, "_read_batch", stop)
    code, out, err = ingest("--dry-run")
    assert (code, out) == (130, "")
    assert "error: stopped by the keyboard" in err
    assert len(seen) < 90
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("9", r"--drop-channels names '9'; plate P has: 1 \(w1\), 2 \(w2\)"),
        ("1,2", "--drop-channels leaves no channel"),
        ("", "--drop-channels names ''"),
    ],
)
def test_channels_that_cannot_be_dropped(
    wanted: str, message: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    write_images()
    with pytest.raises(InputError, match=message):
        ingest_plates(make_settings(drop_channels=wanted))
