"""A sample of the damaged and hostile files, and that their judge can say no."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.ingest.readers.xml_pieces import MOST_TAG_BYTES, iterparse
from pipelines.torture.attack import Attack
from pipelines.torture.escapes import ESCAPE, names_of
from pipelines.torture.hostile import BOMB, XML_BOMB, xml_bombs
from pipelines.torture.judge import BROKEN, RECORDED, SAME, TOLD, Output, compare
from pipelines.torture.mutants import mutants_section, torture_mutants
from pipelines.torture.mutators import MUTATORS, description_of, replace_description
from pipelines.torture.trial import Verdict


def test_no_damaged_file_passes_for_another(shared: Path, tmp_path: Path) -> None:
    found = torture_mutants(shared / "data", tmp_path / "out", mutants=70, attacks=40, seed=3, workers=1)
    section = mutants_section(found, "somewhere")
    assert section.failures == []
    assert len({verdict.victim for verdict in found}) == 11
    assert {BOMB, XML_BOMB, ESCAPE} <= {verdict.kind for verdict in found}
    verdicts = Counter(verdict.verdict for verdict in found)
    assert min(verdicts["refused"], verdicts[SAME], verdicts[RECORDED]) >= 5


ATTACK = Attack("P", "tiff", "bits flipped", {"a.tif": b"damaged"})
WHOLE = Output({"0": "old"}, frozenset({"plane"}), frozenset({"sound"}), frozenset())


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (WHOLE, SAME),
        (Output({"0": "new"}, frozenset({"x"}), frozenset({"sound"}), frozenset()), BROKEN),
        (Output({}, frozenset(), frozenset({"sound"}), frozenset()), BROKEN),
        (Output({"0": "old", "1": "new"}, frozenset({"x"}), frozenset({"sound"}), frozenset()), BROKEN),
        (
            Output(
                {"0": "new"}, frozenset(), frozenset({hashlib.sha256(b"damaged").hexdigest()}), frozenset()
            ),
            RECORDED,
        ),
        (Output({"0": "new"}, frozenset({"x"}), frozenset({"x"}), frozenset()), RECORDED),
        (Output({"0": "new"}, frozenset({"x"}), frozenset({"y"}), frozenset()), BROKEN),
        (Output({"0": "new"}, frozenset({"x"}), frozenset(), frozenset({"filled: A01/1"})), TOLD),
    ],
)
def test_the_judge_sees_a_difference_that_nobody_tells(found: Output, verdict: str) -> None:
    assert compare(found, WHOLE, ATTACK)[0] == verdict


def test_a_broken_trial_is_a_failure_of_the_campaign() -> None:
    good = Verdict(0, "P", "tiff", "truncated in a.tif", "refused", "", 0.1, 1000)
    bad = Verdict(1, "P", "tiff", "bits flipped in a.tif", BROKEN, "KeyError: 'x'", 0.1, 2_000_000)
    section = mutants_section([good, bad], "somewhere")
    assert section.failures == ["tiff 1, P: bits flipped in a.tif: KeyError: 'x'"]
    assert "| P, tiff | 2 | 1 | 0 | 0 | 0 | 1 | 0.1 | 2 |" in section.body


@pytest.mark.parametrize("kind", ["tiff", "xml", "csv", "json", "ome-xml"])
def test_every_mutator_damages_every_file_of_its_kind(kind: str) -> None:
    file = io.BytesIO()
    text = b'<?xml version="1.0" encoding="utf-8"?>\n<OME><a b="12">345</a>\n<c/></OME>'
    tifffile.imwrite(file, np.arange(900, dtype=np.uint16).reshape(30, 30), description=text, metadata=None)
    content = {
        "xml": text,
        "csv": b"a,b\n1,2\n3,4\n" * 20,
        "json": b'{"a": [1, {"b": "2"}], "c": "a text that is somewhat longer"}',
    }.get(kind, file.getvalue())
    for name, mutate in MUTATORS[kind].items():
        results = [mutate(content, np.random.default_rng(seed)) for seed in range(20)]
        assert set(results) - {content}, name
        assert results[0] == mutate(content, np.random.default_rng(0)), name


def test_the_description_of_a_tiff_is_replaced_and_its_pixels_stay() -> None:
    file, pixels = io.BytesIO(), np.arange(900, dtype=np.uint16).reshape(30, 30)
    tifffile.imwrite(file, pixels, description="old", metadata=None)
    changed = replace_description(file.getvalue(), b"new and longer")
    assert description_of(changed) == b"new and longer"
    with tifffile.TiffFile(io.BytesIO(changed)) as tiff:
        assert tiff.pages.first.description == "new and longer"
        np.testing.assert_array_equal(tiff.asarray(), pixels)


def test_every_way_out_is_another_one(tmp_path: Path) -> None:
    ways = names_of(tmp_path / "outside" / "canary.tif", tmp_path / "source" / "images")
    assert len(ways) == len(set(ways)) >= 39
    assert "../../outside/canary.tif" in ways


@pytest.mark.parametrize("name", xml_bombs(b"<a/>"))
def test_no_bomb_goes_off_in_the_parser_of_all_readers(name: str) -> None:
    bomb = xml_bombs(b'<?xml version="1.0" encoding="utf-8"?>\n<OME><Image/></OME>')[name]
    fed = io.BytesIO(bomb)
    if name == "200,000 empty elements":
        assert sum(event == "end" for event, _ in iterparse(fed)) == 200_002
        return
    with pytest.raises(ValueError, match=r"DTDForbidden|too deeply|a tag is longer than 1 MiB"):
        list(iterparse(fed))
    assert fed.tell() < 2 * MOST_TAG_BYTES
