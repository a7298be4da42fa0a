"""What a source lists: every file once, nothing of stores, no name that cannot be written down."""

import itertools
import os
from pathlib import Path

import pytest

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.sources import Source, list_files, natural


def touch(folder: Path, *names: str | bytes) -> None:
    for name in names:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))  # noqa: PTH118 - bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_files_are_listed_once_sorted_and_without_what_systems_and_stores_leave(tmp_path: Path) -> None:
    touch(
        tmp_path, "b/2.TIF", "a.tiff", ".hidden.tif", "P.ome.zarr/c.tif", ".git/d.tif", "notes.txt", "ü.tif"
    )
    (tmp_path / "round").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)] == [
        "a.tiff",
        "b/2.TIF",
        "ü.tif",
    ]
    source = Source(tmp_path)
    assert source.files() == list_files(tmp_path)
    assert [path.name for path in source.files(frozenset({".txt"}))] == ["notes.txt"]


def test_an_image_whose_name_is_no_text_is_refused_and_another_file_is_not(tmp_path: Path) -> None:
    touch(tmp_path, b"note-\xb5.txt", "a.tif")
    assert len(list_files(tmp_path)) == 1
    touch(tmp_path, b"P\xe4_B02_s1_w1.tif")
    with pytest.raises(
        InputError, match=r"P\\xe4_B02_s1_w1\.tif' has letters in its name that are not UTF-8"
    ):
        list_files(tmp_path)


def test_names_of_one_number_have_one_order() -> None:
    """Channels are ordered so: the order of a set, which differs from run to run, must not decide."""
    ordered = ["01", "1", "1a", "10", "w2", "w10"]
    assert all(sorted(names, key=natural) == ordered for names in itertools.permutations(ordered))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["load_data.csv", "Index.xml", "P.HTD", "MeasurementData.mlf", "P.companion.ome"]
)
def test_a_pipe_keeps_nobody_waiting(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "P_A01_s1_w1.tif")
    os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.tif")
    (tmp_path / f"link.{name}").symlink_to(tmp_path / name)
    (tmp_path / "lost.xml").symlink_to(tmp_path / "nowhere")
    assert [path.name for path in list_files(tmp_path, None)] == ["P_A01_s1_w1.tif", "lost.xml", "pipe.tif"]
    (plate,) = read_source(tmp_path, IngestSettings(sources=(tmp_path,), out=tmp_path / "out"))
    assert plate.evidence == "ImageXpress: found names such as P_A01_s1_w1.tif"
