"""What real plates contain, from real bytes: every trap is told in one clear line, or read for what it is."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile

from cellvim.store import FieldKey, PlateReader

Answer = tuple[int, str, str]
Ingest = Callable[..., Answer]
FIRST, LAST = "9987_B02_s1_w1.TIF", "9987_B03_s2_w2.TIF"
GUID = "66923EBB-9960-4952-8955-D1721D112EE2"


@pytest.fixture
def export(shared: Path, tmp_path: Path) -> Path:
    """A real MetaXpress export: wells B02 and B03, 2 sites, 2 channels, uncompressed, and its .HTD."""
    return copy(
        shared / "data/imagexpress/ImageXpress_exported/9987_Plate_3435/TimePoint_1", tmp_path / "images"
    )


@pytest.fixture
def measurement(shared: Path, tmp_path: Path) -> Path:
    """A real Harmony measurement: well C03, 2 fields, 1 channel, LZW; its index has a byte-order mark."""
    return copy(shared / "data/operetta/operetta_plate/Images", tmp_path / "images")


def copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
    return target


def was_refused(ingest: Ingest, tmp_path: Path, line: str) -> None:
    """The line is told before anything is written, by the dry run as by the ingest itself."""
    code, out, err = ingest()
    assert (code, out) == (3, "")
    assert line in err
    assert err.count("error: ") == err.count("hint: ") == 1
    code, out, _ = ingest("--dry-run")
    assert code == 3
    assert line in out
    assert not (tmp_path / "out").exists()


def plate_of(tmp_path: Path) -> PlateReader:
    (path,) = (tmp_path / "out").glob("*.ome.zarr")
    return PlateReader(path)


def zero_fill(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def replace_by_page(path: Path) -> None:
    path.write_text('<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>')


def shrink(path: Path) -> None:
    tifffile.imwrite(path, tifffile.imread(path)[:128, :200])


def widen(path: Path) -> None:
    tifffile.imwrite(path, tifffile.imread(path).astype(np.float32))


FILES = {
    "zero-filled": (zero_fill, "is filled with zeros"),
    "truncated": (truncate, "is truncated: needs byte 131,082 of 92,013"),
    "page": (replace_by_page, "is a text page, not a TIFF"),
    "undersized": (shrink, "is 200 x 128 pixels, the others 256 x 256"),
    "32 bits": (widen, "holds float32, the other planes uint16"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file(kind: str, export: Path, ingest: Ingest, tmp_path: Path) -> None:
    damage, line = FILES[kind]
    damage(export / FIRST)
    was_refused(ingest, tmp_path, f"B02/1 DAPI: {FIRST} {line}")


def test_damaged_lzw(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    """Headers are whole, so it shows only when pixels are read: the field is named and never part of a plate."""
    path = measurement / "r03c03f02p01-ch1sk1fk1fl1.tiff"
    content = bytearray(path.read_bytes())
    content[1_000_000:1_001_000] = bytes(1000)
    path.write_bytes(content)
    code, out, err = ingest()
    assert (code, out) == (3, "")
    assert "error: field C03/2: Fluorescein (FITC): r03c03f02p01-ch1sk1fk1fl1.tiff cannot be decoded" in err
    assert not list((tmp_path / "out").glob("*.ome.zarr/zarr.json"))
    code, out, err = ingest("--on-missing", "skip-field")
    assert code == 1
    assert "cannot be decoded" in err
    assert plate_of(tmp_path).fields == (FieldKey("C03", 1),)


def test_an_index_that_names_files_that_are_not_there(
    measurement: Path, ingest: Ingest, tmp_path: Path
) -> None:
    lost = "r03c03f02p01-ch1sk1fk1fl1.tiff"
    (measurement / lost).unlink()
    was_refused(ingest, tmp_path, f"C03/2 Fluorescein (FITC): {lost} the file is not there")


def test_files_that_the_index_does_not_name(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    shutil.copyfile(
        measurement / "r03c03f01p01-ch1sk1fk1fl1.tiff", measurement / "r09c09f01p01-ch1sk1fk1fl1.tiff"
    )
    code, out, _ = ingest()
    assert code == 0
    assert "note: 1 images are not in the index: r09c09f01p01-ch1sk1fk1fl1.tiff" in out
    assert plate_of(tmp_path).wells == ("C03",)


def test_a_channel_in_only_some_wells(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    """It is one problem, however many wells lack it, and can be left out."""
    for well in ("B04", "B05", "B06"):
        for site in (1, 2):
            shutil.copyfile(export / FIRST, export / f"9987_{well}_s{site}_w1.TIF")
    line = (
        "channel 2 (FITC) is in 2 of 5 wells, 4 of 10 fields: B02, B03 (leave it out with --drop-channels 2)"
    )
    was_refused(ingest, tmp_path, line)
    assert ingest("--dry-run")[1].count("problem: ") == 1
    for name in ("2", "FITC"):
        assert ingest("--drop-channels", name, "--overwrite")[0] == 0
        assert plate_of(tmp_path).channels == ("DAPI",)
        assert len(plate_of(tmp_path).fields) == 10


def test_a_channel_that_some_wells_lack(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    for site in (1, 2):
        shutil.copyfile(export / FIRST, export / f"9987_B04_s{site}_w1.TIF")
    was_refused(ingest, tmp_path, "B04 FITC: is missing in all 2 fields of the well")
    code, out, _ = ingest("--on-missing", "fill")
    assert code == 0
    assert "filled with zeros: B04/1: FITC is missing" in out
    assert [plate_of(tmp_path).is_valid(FieldKey("B04", site)).tolist() for site in (1, 2)] == [
        [True, False]
    ] * 2


def test_two_channels_that_name_one_file(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    second = add_channel(measurement, name="DAPI", url="r03c03f01p01-ch1sk1fk1fl1.tiff")
    assert second
    name = "r03c03f01p01-ch1sk1fk1fl1.tiff"
    was_refused(
        ingest, tmp_path, f"C03/1 DAPI: {name} is named by several planes: C03/1 channel 1, C03/1 channel 2"
    )


def add_channel(measurement: Path, *, name: str, url: str) -> bool:
    """Let the index name a second channel in field 1."""
    index = measurement / "Index.idx.xml"
    content = index.read_text(encoding="utf-8-sig")
    start = content.index("<Image Version")
    image = content[start : content.index("</Image>", start) + len("</Image>")]
    second = image.replace("<ChannelID>1<", "<ChannelID>2<").replace("Fluorescein (FITC)", name)
    second = second.replace("r03c03f01p01-ch1sk1fk1fl1.tiff", url)
    index.write_text(content.replace(image, image + second), encoding="utf-8-sig")
    return second != image


def test_two_channels_of_one_name(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    assert add_channel(measurement, name="Fluorescein (FITC)", url="r03c03f01p01-ch2sk1fk1fl1.tiff")
    for field, name in ((1, "r03c03f02p01-ch1sk1fk1fl1.tiff"), (2, "r03c03f02p01-ch1sk1fk1fl1.tiff")):
        shutil.copyfile(measurement / name, measurement / f"r03c03f0{field}p01-ch2sk1fk1fl1.tiff")
    code, out, _ = ingest("--on-missing", "fill")
    assert code == 0
    assert "2 channels are named Fluorescein (FITC) by the source" in out
    assert plate_of(tmp_path).channels == ("Fluorescein (FITC)_1", "Fluorescein (FITC)_2")


def test_endings_in_any_case(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(export.glob("*.TIF"))):
        path.rename(path.with_suffix((".tif", ".TIF", ".Tiff", ".tIFF")[number % 4]))
    assert ingest()[0] == 0
    assert len(plate_of(tmp_path).fields) == 4


def test_backslashes_in_paths(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    (measurement / "raw").mkdir()
    for path in measurement.glob("*.tiff"):
        path.rename(measurement / "raw" / path.name)
    index = measurement / "Index.idx.xml"
    index.write_bytes(index.read_bytes().replace(b"<URL>", rb"<URL>raw\\"[:-1]))
    assert ingest()[0] == 0
    assert len(plate_of(tmp_path).fields) == 2


def test_an_index_in_the_folder_above(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    (measurement / "Images").mkdir()
    for path in measurement.glob("*.tiff"):
        path.rename(measurement / "Images" / path.name)
    code, out, _ = ingest(source=measurement / "Images")
    assert code == 0
    assert "Operetta: found Index.idx.xml" in out
    assert plate_of(tmp_path).channels == ("Fluorescein (FITC)",)


def test_a_byte_order_mark(measurement: Path, ingest: Ingest, tmp_path: Path) -> None:
    assert (measurement / "Index.idx.xml").read_bytes().startswith(b"\xef\xbb\xbf<")
    assert ingest()[0] == 0
    assert plate_of(tmp_path).name == "Test_Sample_BALL"


def test_a_plan_of_another_code_page_that_declares_more(shared: Path, ingest: Ingest, tmp_path: Path) -> None:
    source = shared / "data/imagexpress/ImageXpress_exported/9987_Plate_3434"
    with pytest.raises(UnicodeDecodeError):
        (source / "9987.HTD").read_text(encoding="utf-8")
    code, out, _ = ingest(source=source)
    assert code == 0
    assert "note: 9987.HTD declares wavelengths without any file: 4 (Cy5)" in out
    assert plate_of(tmp_path).channels == ("DAPI", "FITC", "Texas Red")


def test_unpadded_wells_and_sites_that_differ_by_well(shared: Path, ingest: Ingest, tmp_path: Path) -> None:
    source = shared / "data/nf1_schwann/images"
    assert ingest("--pattern", "{well}_{}_{}_{field}_{channel}_{}.tif", source=source)[0] == 0
    fields = [("B07", 3), ("D06", 2), ("D07", 1), ("F07", 2), ("H12", 1)]
    assert plate_of(tmp_path).fields == tuple(FieldKey(well, site) for well, site in fields)


def test_wells_of_plates_with_1536(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    (export / "9987.HTD").unlink()
    for path in export.glob("*.TIF"):
        path.rename(path.with_name(path.name.replace("_B02_", "_AA01_").replace("_B03_", "_AF48_")))
    code, out, _ = ingest("--dry-run")
    assert code == 0
    assert max(map(len, draw_of(out))) <= 80
    assert draw_of(out)[-1].split() == ["AF", "." * 47 + "#"]
    assert ingest()[0] == 0
    assert plate_of(tmp_path).wells == ("AA01", "AF48")


def draw_of(out: str) -> list[str]:
    lines = [line for line in out.splitlines() if set(line[5:]) <= set("#-~2!. ") and line.strip()]
    return [line for line in lines if line.split()[0].isalpha()]


def test_a_site_number_glued_to_a_guid(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    (export / "9987.HTD").unlink()
    for path in export.glob("*_w2.TIF"):
        path.unlink()
    for path in export.glob("*_w1.TIF"):
        path.rename(path.with_name(path.name.replace("_w1.TIF", f"{GUID}.TIF")))
    assert ingest("--source", "imagexpress")[0] == 0
    assert [key.site for key in plate_of(tmp_path).fields] == [1, 2, 1, 2]


def test_json_of_a_refused_plate_is_json(export: Path, ingest: Ingest) -> None:
    zero_fill(export / LAST)
    code, out, _ = ingest("--dry-run", "--json")
    assert code == 3
    (plate,) = json.loads(out)["plates"]
    assert [field["state"] for field in plate["fields"]] == ["complete"] * 3 + ["damaged"]
    assert plate["fields"][3]["channels"]["FITC"] == {
        "state": "damaged",
        "files": [LAST],
        "problem": f"{LAST} is filled with zeros",
    }


def test_an_uncompressed_file_with_a_zeroed_middle(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    """It reads without complaint. The plate is made, and the plane is flagged, as it is unlike the 7 others."""
    for path in export.glob("*_B0?_*.TIF"):
        shutil.copyfile(path, export / path.name.replace("_B0", "_C0"))
    path = export / FIRST
    content = bytearray(path.read_bytes())
    content[40_000:60_000] = bytes(20_000)
    path.write_bytes(content)
    code, out, _ = ingest()
    assert code == 0
    assert "note: 1 plane is partly blank: B02/1 DAPI (see qc.html)" in out
    planes = quality_of(tmp_path)
    assert planes.pop((*("B02", 1), "DAPI"))["empty_fraction"] > 0.1
    assert {row["empty_fraction"] for row in planes.values()} == {0.0}


def quality_of(tmp_path: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    (path,) = (tmp_path / "out").glob("*.cellvim/quality.parquet")
    rows = pl.read_parquet(path).iter_rows(named=True)
    return {(row["Metadata_Well"], row["Metadata_Site"], row["channel"]): row for row in rows}


def test_eight_bits_stored_times_257(shared: Path, ingest: Ingest) -> None:
    source = shared / "data/nf1_schwann/images"
    code, out, err = ingest("--pattern", "{well}_{}_{}_{field}_{channel}_{}.tif", source=source)
    assert code == 0
    assert "8-bit values stored times 257" in out + err


def test_saturated_planes(export: Path, ingest: Ingest, tmp_path: Path) -> None:
    pixels = tifffile.imread(export / FIRST)
    pixels[pixels > np.median(pixels)] = 65535
    tifffile.imwrite(export / FIRST, pixels)
    code, out, _ = ingest()
    assert code == 0
    assert "note: 1 plane is saturated: B02/1 DAPI (see qc.html)" in out
    planes = quality_of(tmp_path)
    spoilt = planes.pop(("B02", 1, "DAPI"))
    assert spoilt["saturated_fraction"] == pytest.approx((pixels == 65535).mean())
    assert "saturated" in spoilt["flags"]
    assert not any("saturated" in row["flags"] for row in planes.values())


def test_one_picture_under_two_names(export: Path, ingest: Ingest) -> None:
    shutil.copyfile(export / FIRST, export / "9987_B02_s1_w2.TIF")
    code, out, _ = ingest()
    assert code == 0
    assert "note: 2 planes have the pixels of another: B02/1 DAPI = B02/1 FITC" in out
