"""Verify --sources: what said where each plane belongs is compared, too, wherever it lies."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.ingest.checking.plates import verify_plates
from cellvim.store.verification import Verification
from tests.ingest.readers.test_ome_tiff import draw, image_xml, ome, plate_xml, write
from tests.ingest.readers.test_operetta import NAME, harmony_name, image, write_index

MakeSettings = Callable[..., IngestSettings]


def compare(settings: IngestSettings, sources: Path) -> Verification:
    (found,) = verify_plates([settings.out], sources=sources).values()
    return found


def draw_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(path.name.encode()))
    tifffile.imwrite(path, generator.integers(1, 999, (40, 50)).astype(np.uint16))


def write_table(folder: Path, well: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "load_data.csv"
    path.write_text(f"FileName_OrigDNA,Metadata_Plate,Metadata_Well,Metadata_Site\na.tif,P,{well},1\n")
    return path


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_table_that_was_named_itself(
    is_elsewhere: bool, make_settings: MakeSettings, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    draw_image(images / "a.tif")
    folder = tmp_path / "tables" if is_elsewhere else images
    table = write_table(folder, "A01")
    settings = make_settings(sources=(table,), images=images if is_elsewhere else None)
    ingest_plates(settings)
    found = compare(settings, images)
    assert (found.problems, found.sources) == ([], 2)
    write_table(folder, "A02")
    (problem,) = compare(settings, images).problems
    assert problem.endswith("load_data.csv has changed since the plate was made")
    table.unlink()
    (problem,) = compare(settings, images).problems
    assert problem.endswith("load_data.csv is missing")


@pytest.mark.parametrize("is_moved", [False, True])
def test_an_index_above_the_images(is_moved: bool, make_settings: MakeSettings, tmp_path: Path) -> None:
    export = tmp_path / "export"
    names = NAME, harmony_name(1, field=2)
    for name in names:
        draw_image(export / "Images" / name)
    write_index(export / "Index.idx.xml", image(names[0]), image(names[1], field=2))
    settings = make_settings(sources=(export / "Images",))
    ingest_plates(settings)
    if is_moved:
        export = export.rename(tmp_path / "moved")
    assert compare(settings, export / "Images").problems == []
    write_index(export / "Index.idx.xml", image(names[1]), image(names[0], field=2))
    (problem,) = compare(settings, export / "Images").problems
    assert problem.endswith("Index.idx.xml has changed since the plate was made")
    (export / "Index.idx.xml").unlink()
    (problem,) = compare(settings, export / "Images").problems
    assert problem.endswith("Index.idx.xml is missing")


def test_ome_xml_of_a_file_whose_pages_are_the_same(make_settings: MakeSettings, tmp_path: Path) -> None:
    path = tmp_path / "images" / "all.ome.tif"
    pixels = draw(4)

    def write_wells(first: int, second: int) -> None:
        images = [image_xml(n, f'<TiffData IFD="{2 * n}" PlaneCount="2"/>') for n in range(2)]
        write(path, pixels, ome(plate_xml({(0, 0): [(0, first)], (0, 1): [(0, second)]}), *images))

    write_wells(0, 1)
    ingest_plates(make_settings())
    assert compare(make_settings(), path.parent).problems == []
    write_wells(1, 0)
    (problem,) = compare(make_settings(), path.parent).problems
    assert problem == "source OME-XML in all.ome.tif has changed since the plate was made"


def test_a_plate_map_elsewhere_is_compared_while_it_is_there(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    images, table = tmp_path / "images", tmp_path / "maps" / "map.csv"
    draw_image(images / "P_A01_s1_w1.tif")
    table.parent.mkdir()
    table.write_text("well,perturbation\nA1,x\n")
    settings = make_settings(platemap=table)
    ingest_plates(settings)
    assert compare(settings, images).problems == []
    table.write_text("well,perturbation\nA1,y\n")
    assert compare(settings, images).problems == [f"source {table} has changed since the plate was made"]
    shutil.rmtree(table.parent)
    found = compare(settings, images)
    assert (found.problems, found.notes) == ([], [f"{table} is not there to be compared"])


def test_another_folder_is_one_problem(make_settings: MakeSettings, tmp_path: Path) -> None:
    for well in ("A01", "A02"):
        draw_image(tmp_path / "images" / f"P_{well}_s1_w1.tif")
    ingest_plates(make_settings())
    (problem,) = compare(make_settings(), tmp_path).problems
    assert problem.startswith("sources cannot be compared: none of its 2 source files lies in ")
