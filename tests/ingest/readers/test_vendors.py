"""What is common to all readers: folders of no kind, and the names of channels."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.channels import name_channels
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.imagexpress.reader import ImageXpressReader
from cellvim.ingest.readers.operetta.reader import OperettaReader
from cellvim.ingest.sources import Source, SourcePlate

WriteImages = Callable[..., Path]


def read(folder: Path, **changes: object) -> list[SourcePlate]:
    return read_source(folder, IngestSettings(sources=(folder,), out=folder, **changes))


def test_folders_of_no_known_kind(tmp_path: Path, write_images: WriteImages) -> None:
    with pytest.raises(InputError, match="holds no TIFF images"):
        read(tmp_path)
    folder = write_images(template="{well}-{site}-{channel}.tif")
    with pytest.raises(InputError, match=r"8 images, of no kind .* A01-1-1.tif, A01-1-2.tif, A01-2-1.tif"):
        read(folder)
    with pytest.raises(InputError, match="no ImageXpress images"):
        read(folder, source="imagexpress")
    with pytest.raises(InputError, match=r"no Index.idx.xml"):
        read(folder, source="operetta")


@pytest.mark.parametrize(
    "name",
    ["P__1-Measurement 1/Images/r01c01f01p01-ch1sk1fk1fl1.tiff", "P/P_A01_s1_w1.tif", "P/P_A01f00d0.tif"],
)
def test_what_is_of_no_plate_is_named(name: str, tmp_path: Path) -> None:
    """A plate of another vendor, a link to a plate: nobody may think that they were read."""
    for path in (name, "Q/x_B7-1.tif", "Q/x_B8-1.tif", f"{name.rpartition('/')[0]}/more/x.tif"):
        (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "all" / path, np.ones((4, 4), np.uint16))
    (tmp_path / "all/R").symlink_to(tmp_path / "all/Q")
    notes = read(tmp_path / "all")[0].notes
    assert notes[-2:] == (
        "2 images are in folders that belong to no plate: Q",
        "1 links to folders are not followed: R",
    )
    (tmp_path / "links").mkdir()
    (tmp_path / "links/P").symlink_to(tmp_path / "all")
    with pytest.raises(InputError, match="holds no TIFF images; 1 links to folders are not followed: P"):
        read(tmp_path / "links")


def test_readers_keep_the_protocol(tmp_path: Path) -> None:
    settings = IngestSettings(sources=(tmp_path,), out=tmp_path)
    assert ImageXpressReader().recognise(Source(tmp_path), settings) is None
    assert OperettaReader().recognise(Source(tmp_path), settings) is None


def test_channel_names() -> None:
    stains = {"1": "FITC", "2": "FITC", "10": "DNA"}
    assert name_channels(["10", "2", "1"], stains, None) == {"1": "FITC_1", "2": "FITC_2", "10": "DNA"}
    assert list(name_channels(["10", "2", "1"], {}, "a, b,c").items()) == [
        ("1", "a"),
        ("2", "b"),
        ("10", "c"),
    ]
    assert name_channels(["1", "2"], stains, "2=DNA") == {"1": "FITC", "2": "DNA"}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("DNA", "names 1 stains, the source has 2 channels: 1, 2"),
        ("DNA,DNA", "one name"),
        ("1=A,3=B", "names key '3', the source has: 1, 2"),
        ("1=A,1=B", "names key '1'"),
        ("1=A,B", "mixes"),
        ("DNA,", "empty stain"),
    ],
)
def test_channel_names_that_do_not_fit(wanted: str, message: str) -> None:
    with pytest.raises(InputError if "names" in message else ValueError, match=message):
        name_channels(["1", "2"], {}, wanted)
