"""Indexes that are damaged, hostile or huge: planes or a clear error, and memory for nothing but the images."""

import random
import tracemalloc
from pathlib import Path

import pytest

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.detect import read_source
from cellvim.ingest.readers.operetta.index import parse_index
from cellvim.ingest.readers.operetta.reader import OperettaReader
from cellvim.ingest.sources import Source, SourcePlate

MUTATIONS = 300
# An image of an index is some 1,500 bytes of text; kept are its name and its place.
MOST_BYTES_PER_IMAGE = 800


def read(path: Path) -> list[SourcePlate]:
    return read_source(path, IngestSettings(sources=(path,), out=path))


NESTED = b"<a>" * 100_000 + b"</a>" * 100_000


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
        NESTED,
        b"<Image><URL>" + b"a" * 100_000 + b"</URL></Image>",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_an_index_that_is_broken_or_hostile(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "Index.xml").write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable index|names no images"):
        read(tmp_path)


@pytest.fixture
def real_index(shared: Path) -> bytes:
    return (shared / "data/operetta/operetta_plate/Images/Index.idx.xml").read_bytes()


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Flip bytes, cut the end or a piece off, or exchange digits: what bad disks and bad copies do."""
    damaged = bytearray(content)
    kind = chance.choice(["flip", "cut", "drop", "digit", "repeat"])
    start = chance.randrange(len(damaged))
    if kind == "flip":
        for _ in range(chance.choice([1, 1, 1, 8])):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del damaged[start:]
    elif kind == "drop":
        del damaged[start : start + chance.choice([1, 10, 300])]
    elif kind == "repeat":
        damaged[start:start] = damaged[start : start + 2000]
    else:
        digits = [place for place, byte in enumerate(damaged) if 48 <= byte <= 57]
        for place in chance.sample(digits, 3):
            damaged[place] = chance.choice(b"0123456789")
    return bytes(damaged)


@pytest.mark.parametrize("name", ["Index.idx.xml", "Index.xml"])
def test_a_damaged_index_gives_planes_or_one_clear_error(
    real_index: bytes, tmp_path: Path, name: str
) -> None:
    chance = random.Random(name)  # noqa: S311 - nothing secret
    outcomes = {"planes": 0, "refused": 0}
    for _ in range(MUTATIONS):
        (tmp_path / name).write_bytes(mutate(real_index, chance))
        assert OperettaReader().recognise(Source(tmp_path), IngestSettings(sources=(tmp_path,), out=tmp_path))
        try:
            (plate,) = read(tmp_path)
        except InputError:
            outcomes["refused"] += 1
        else:
            assert plate.planes
            outcomes["planes"] += 1
    assert min(outcomes.values()) > MUTATIONS // 10


def test_an_index_takes_no_memory_but_for_its_images(tmp_path: Path) -> None:
    path = tmp_path / "Index.xml"

    def peak(images: int, clutter: int) -> int:
        junk = "<Junk><a>text</a><b><c/></b></Junk>" * clutter
        entry = "<Image>" + "<Junk>text</Junk>" * 30 + "<URL>r01c01f{0:06d}p01.tiff</URL>"
        place = "<Row>1</Row><Col>1</Col><FieldID>{0}</FieldID></Image>"
        path.write_text(f"<x>{junk}{''.join((entry + place).format(n) for n in range(images))}</x>")
        tracemalloc.start()
        try:
            assert len(parse_index(path).images) == images
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10, 10)
    assert peak(10, 20_000) - peak(10, 10_000) < 20_000
    assert peak(1_500, 0) - peak(500, 0) < 1_000 * MOST_BYTES_PER_IMAGE


def test_more_images_than_any_plate_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellvim.ingest.readers.operetta.index.MOST_FILES", 2)
    image = "<Image><URL>a.tiff</URL><Row>1</Row><Col>1</Col><FieldID>1</FieldID></Image>"
    path = tmp_path / "Index.xml"
    path.write_text(f"<x>{image * 2}</x>")
    assert len(parse_index(path).images) == 2
    path.write_text(f"<x>{image * 3}</x>")
    with pytest.raises(InputError, match="names more than 2 images"):
        parse_index(path)


def test_an_index_of_many_gigabytes_is_not_begun(tmp_path: Path) -> None:
    with (tmp_path / "Index.xml").open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InputError, match="is larger than 2 GiB"):
        read(tmp_path)


def test_an_index_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "Index.xml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a readable index"):
        read(tmp_path)
