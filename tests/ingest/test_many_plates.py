"""Several plates at once: a bad one stops all or only itself, as asked; folders of every kind."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError, PreflightError, SomeFailedError
from cellvim.ingest import FieldsFailedError, ingest_plates
from cellvim.store import PlateReader, verify_plate

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]


def remove_all(folder: Path) -> None:
    """Nothing usable is left of plate Q, and its headers say so."""
    for path in folder.glob("Q_*"):
        path.write_bytes(bytes(100))


def spoil_all(folder: Path) -> None:
    """Each field of plate Q has a bad header."""
    for path in folder.glob("Q_*_w1.tif"):
        path.write_bytes(b"")


def blank_all(folder: Path) -> None:
    """Nothing usable is left of plate Q, which only its pixels show."""
    for path in folder.glob("Q_*"):
        tifffile.imwrite(path, np.zeros((40, 50), np.uint16))


BAD_PLATES = {
    "no image": (remove_all, "none of its 8 images is usable; Q_A01_s1_w1.tif is filled with zeros"),
    "no field": (spoil_all, "none of its 4 fields is usable; A01/1 w1: Q_A01_s1_w1.tif is empty"),
    "no pixel": (blank_all, "not one of its 4 fields could be read"),
}


@pytest.mark.parametrize("kind", BAD_PLATES)
def test_a_bad_plate_does_not_stop_the_others(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    damage, line = BAD_PLATES[kind]
    for name in ("P", "Q", "R"):
        folder = write_images(name)
    damage(folder)
    with pytest.raises(FieldsFailedError, match=rf"1 plate\(s\) could not be read: Q: .*{line}") as caught:
        ingest_plates(make_settings(on_missing="skip-field"))
    assert caught.value.exit_code == 1
    summary = caught.value.summary
    assert [plate.name for plate in summary.plates] == ["P", "R"]
    assert line in json.loads(json.dumps(summary.as_dict()))["failed"]["Q"]
    assert "Q  failed: " in str(summary)
    for plate in summary.plates:
        assert len(PlateReader(plate.path).fields) == 4
        assert verify_plate(plate.path) == []
    assert not (make_settings().out / "Q.ome.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("kind", ["no image", "no field"])
def test_a_bad_plate_stops_all_before_the_first_byte(
    kind: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    for name in ("P", "Q", "R"):
        folder = write_images(name)
    BAD_PLATES[kind][0](folder)
    with pytest.raises(InputError, match="Q"):
        ingest_plates(make_settings())
    assert not make_settings().out.exists()


def test_problems_of_several_plates_are_named_together(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    for name in ("P", "Q", "R"):
        folder = write_images(name)
    for name in ("P", "R"):
        (folder / f"{name}_A01_s1_w1.tif").unlink()
    with pytest.raises(PreflightError, match="plate P, R: nothing was written: 2 problems") as caught:
        ingest_plates(make_settings())
    assert caught.value.problems == ("P: A01/1 w1: is missing", "R: A01/1 w1: is missing")
    assert not make_settings().out.exists()


def test_a_dry_run_tells_of_all_plates_whatever_one_is_like(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:
    for name in ("P", "Q", "R"):
        folder = write_images(name)
    remove_all(folder)
    summary = ingest_plates(make_settings(dry_run=True))
    assert [plate.name for plate in summary.plates] == ["P", "R"]
    assert "none of its 8 images is usable" in summary.failed["Q"]
    with pytest.raises(InputError, match="1 of 3 plates would be refused: Q"):
        summary.refuse_foreseen()
    with pytest.raises(SomeFailedError, match="1 of 3 plates would be left out: Q"):
        ingest_plates(make_settings(dry_run=True, on_missing="skip-field")).refuse_foreseen()


def test_one_source_of_several_that_is_no_plate(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_images()
    (tmp_path / "empty").mkdir()
    sources = (tmp_path / "empty", tmp_path / "images")
    with pytest.raises(InputError, match="empty holds no TIFF images"):
        ingest_plates(make_settings(sources=sources))
    with pytest.raises(FieldsFailedError) as caught:
        ingest_plates(make_settings(sources=sources, on_missing="skip-field"))
    assert [plate.name for plate in caught.value.summary.plates] == ["P"]
    with pytest.raises(NotFoundError, match="nowhere"):
        ingest_plates(make_settings(sources=(tmp_path / "nowhere", *sources), on_missing="skip-field"))


def test_two_plates_of_one_name_are_refused(write_images: WriteImages, make_settings: MakeSettings) -> None:
    folder = write_images(template="a/{plate}_{well}_{site}_{channel}.tif")
    shutil.copytree(folder / "a", folder.parent / "b")
    settings = make_settings(
        sources=(folder, folder.parent / "b"), pattern="{plate}_{well}_{field}_{channel}.tif"
    )
    with pytest.raises(InputError, match=r"2 plates are named P \(all: P, P\)"):
        ingest_plates(settings)
    assert not settings.out.exists()


@pytest.mark.parametrize("name", ["my images", "Plättchen für Zürich", "a'b\"c", "=1+1"])
def test_folders_of_any_name(
    name: str, write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_images().rename(tmp_path / name)
    out = tmp_path / f"out {name}"
    (result,) = ingest_plates(make_settings(sources=(folder,), out=out)).plates
    assert verify_plate(result.path) == []


@pytest.mark.parametrize("name", ["P_A01_s1_w1.tif", "notes.txt", "table.csv"])
def test_a_file_instead_of_a_folder(
    name: str, write_images: WriteImages, make_settings: MakeSettings
) -> None:
    """It is not taken for the folder that it lies in, unless it is the index."""
    folder = write_images()
    for other in ("notes.txt", "table.csv"):
        (folder / other).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is no file that describes a plate"):
        ingest_plates(make_settings(sources=(folder / name,)))
    (folder / "P.HTD").write_text('"HTSInfoFile", Version 1.0\n"WaveName1", "DNA"\n')
    assert ingest_plates(make_settings(sources=(folder / "P.HTD",))).plates[0].fields == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_must_not_be_read(
    write_images: WriteImages, make_settings: MakeSettings
) -> None:  # pragma: no cover - tests usually run as root
    folder = write_images()
    folder.chmod(0)
    try:
        with pytest.raises(OSError, match="Permission denied"):
            ingest_plates(make_settings())
    finally:
        folder.chmod(0o755)


def test_a_source_that_holds_our_own_output(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Plates that an earlier run left below the images are not taken for images, nor for the source."""
    folder = write_images()
    ingest_plates(make_settings(out=tmp_path / "first"))
    shutil.copytree(tmp_path / "first", folder / "plates")
    (result,) = ingest_plates(make_settings(out=tmp_path / "second")).plates
    assert result.evidence.startswith("ImageXpress")
    for path in ("A/01/1/0/c/0/0/0", "zarr.json"):
        first, second = (tmp_path / out / "P.ome.zarr" / path for out in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_a_named_pipe_among_the_images(write_images: WriteImages, make_settings: MakeSettings) -> None:
    folder = write_images()
    (folder / "P_A01_s1_w1.tif").unlink()
    os.mkfifo(folder / "P_A01_s1_w1.tif")
    with pytest.raises(PreflightError, match=r"P_A01_s1_w1\.tif is no file"):
        ingest_plates(make_settings())


def test_thousands_of_channels_are_a_wrong_pattern(make_settings: MakeSettings, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(300):
        (tmp_path / "images" / f"A01_{number:05d}.tif").write_bytes(b"")
    with pytest.raises(InputError, match="has 300 channels: 00000, 00001, 00002"):
        ingest_plates(make_settings(pattern="{well}_{channel}.tif"))


def test_a_dry_run_says_of_each_plate_what_to_do_and_says_it_once(
    write_images: WriteImages, make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    write_images("P")
    for time in (1, 2):
        write_images("Q", template=f"TimePoint_{time}/{{plate}}_{{well}}_s{{site}}_w{{channel}}.tif")
    summary = ingest_plates(make_settings(dry_run=True))
    reason = "plate Q has 2 time points: 1, 2 (choose one with --timepoint)"
    assert str(summary).count(reason) == 1
    assert "time points" not in caplog.text
    with pytest.raises(InputError, match="1 of 2 plates would be refused: Q") as error:
        summary.refuse_foreseen()
    assert "said of each of them above" in error.value.hint
