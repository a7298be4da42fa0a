"""Plates that a study has lost are named in its metrics and on its page."""

from pathlib import Path

import pytest

from cellvim.errors import InputError
from cellvim.evaluate.left_out import left_out_warning, read_left_out


def test_without_a_list_nothing_is_missing() -> None:
    assert read_left_out(None) == []
    assert left_out_warning([]) == []


def test_each_plate_is_named_with_its_step_and_error(tmp_path: Path) -> None:
    path = tmp_path / "left_out.csv"
    path.write_text('plate,step,error,more\nP2,embed,"a, b",x\nP1,ingest,,\n')
    found = read_left_out(path)
    assert found == [
        {"plate": "P1", "step": "ingest", "error": ""},
        {"plate": "P2", "step": "embed", "error": "a, b"},
    ]
    (sentence,) = left_out_warning(found)
    assert sentence.startswith("2 plates of this study failed and are not in these numbers: P1 (ingest")
    assert "P2 (embed: a, b)" in sentence


def test_hundreds_of_plates_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "left_out.csv"
    path.write_text("plate,step,error\n" + "".join(f"P{number:03d},ingest,lost\n" for number in range(300)))
    (sentence,) = left_out_warning(read_left_out(path))
    assert sentence.startswith("300 plates")
    assert sentence.endswith("and 290 more.")
    assert len(sentence) < 500


@pytest.mark.parametrize("content", ["", "plate\nP1\n", "\x00"])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "left_out.csv"
    path.write_text(content)
    with pytest.raises(InputError, match="plate, step, error"):
        read_left_out(path)
