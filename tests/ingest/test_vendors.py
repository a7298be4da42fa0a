"""Operetta folders, with the oddities that real ones have, and what is common to all readers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.channels import name_channels
from cellvim.ingest.detect import read_source
from cellvim.ingest.imagexpress import ImageXpressReader
from cellvim.ingest.operetta import OperettaReader
from cellvim.ingest.sources import Source, SourcePlate
from cellvim.store import FieldKey

WriteImages = Callable[..., Path]


def read(folder: Path, **changes: object) -> list[SourcePlate]:
    return read_source(folder, IngestSettings(sources=(folder,), out=folder, **changes))


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, np.ones((4, 4), np.uint16))


INDEX = """<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/Harmony{version}"><Plates><Plate>
<PlateID>{plate}</PlateID></Plate></Plates>{maps}<Images>{images}</Images></EvaluationInputData>"""
IMAGE = (
    "<Image><id>x</id><URL>{url}</URL><Row>2</Row><Col>3</Col><FieldID>{field}</FieldID><PlaneID>{z}</PlaneID>"
    "<TimepointID>{t}</TimepointID><ChannelID>{channel}</ChannelID>{extra}</Image>"
)
FACTS = "<ChannelName>DAPI</ChannelName><ImageResolutionX Unit='m'>6.5E-07</ImageResolutionX>"


def write_index(path: Path, *images: str, maps: str = "", plate: str = "P:1", version: str = "V5") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = INDEX.format(plate=plate, maps=maps, images="".join(images), version=version)
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())


def image(url: str, *, field: int = 1, z: int = 1, t: int = 0, channel: int = 1, extra: str = FACTS) -> str:
    return IMAGE.format(url=url, field=field, z=z, t=t, channel=channel, extra=extra)


def test_operetta_index_in_or_beside_the_images(tmp_path: Path) -> None:
    touch(tmp_path, "Images/r02c03f01p01-ch1sk1fk1fl1.tiff", "Images/unknown.tiff")
    write_index(tmp_path / "Index.idx.xml", image("r02c03f01p01-ch1sk1fk1fl1.tiff"))
    for folder in (tmp_path, tmp_path / "Images"):
        (plate,) = read(folder)
        assert (plate.name, plate.stains, plate.pixel_size_um) == ("P_1", {"1": "DAPI"}, 0.65)
        assert plate.planes[0].path.is_file()
        assert plate.planes[0].field == FieldKey("B03", 1)
        assert plate.notes == ("1 images are not in the index: unknown.tiff",)


def test_operetta_planes_times_and_backslashes(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.tiff", "b.tiff")
    write_index(
        tmp_path / "Index.xml", image("sub\\a.tiff", z=2, t=1), image("b.tiff", z=1), image("c.tiff", z=3)
    )
    (plate,) = read(tmp_path)
    assert [(plane.z, plane.t, plane.path.is_file()) for plane in plate.planes] == [
        (2, 1, True),
        (1, 0, True),
        (3, 0, False),
    ]


def test_operetta_newer_versions_say_channels_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.tiff")
    maps = f"<Maps><Map><Entry ChannelID='1'>{FACTS}</Entry></Map></Maps>"
    write_index(tmp_path / "Index.xml", image("a.tiff", extra=""), maps=maps, version="V6")
    (plate,) = read(tmp_path)
    assert (plate.stains, plate.pixel_size_um) == ({"1": "DAPI"}, 0.65)


@pytest.mark.parametrize(
    "url", ["../../secret.tiff", "/etc/passwd", "..\\..\\secret.tiff", "C:\\x\\..\\..\\..\\s"]
)
def test_operetta_index_cannot_point_outside(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "a" / "b"
    touch(folder, "a.tiff")
    touch(tmp_path, "secret.tiff")
    write_index(folder / "Index.xml", image(url))
    with pytest.raises(InputError, match="outside of the measurement"):
        read(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<a><b></a>",
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        b"<x/>",
        b"<x>\xff\xfe</x>",
        b'<?xml version="1.0" encoding="klingon"?><x/>',
        b'<?xml version="1.0" encoding="shift_jis"?><x/>',
        b'<?xml version="1.0" encoding="hex"?><x/>',
        b'<?xml version="1.0" encoding="utf-16"?><x/>',
    ],
)
def test_operetta_index_that_is_broken_or_hostile(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "Index.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable index|names no images"):
        read(tmp_path)


@pytest.mark.parametrize("size", ["nan", "inf", "-1", "0", "", "x"])
def test_operetta_pixel_size_that_is_none(tmp_path: Path, size: str) -> None:
    touch(tmp_path, "a.tiff")
    write_index(tmp_path / "Index.xml", image("a.tiff", extra=FACTS.replace("6.5E-07", size)))
    (plate,) = read(tmp_path)
    assert plate.pixel_size_um is None


def test_operetta_image_without_a_place(tmp_path: Path) -> None:
    write_index(tmp_path / "Index.xml", image("a.tiff").replace("<Row>2</Row>", "<Row>x</Row>"))
    with pytest.raises(InputError, match="no usable row"):
        read(tmp_path)


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
