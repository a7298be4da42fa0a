"""JUMP on paper: the page is what the script computes, and its rates are those that the speed pages show."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from pipelines.jump_on_paper import ROOT, Screen, core_hours, grown, page, plate_files, read_rates


def test_the_page_is_what_the_script_writes() -> None:
    assert (ROOT / "docs/scale.md").read_text("utf-8") == page()


@pytest.mark.parametrize("name", read_rates())
def test_a_rate_is_what_its_source_says(name: str) -> None:
    rate = read_rates()[name]
    assert rate.quote in (ROOT / rate.source).read_text("utf-8")
    assert f" {rate.value:g} " in rate.quote.replace(",", "").replace("|", " ")


def test_a_plate_of_jump_is_the_one_of_the_speed_page() -> None:
    """The benchmark extrapolates the same plate by itself: 86,400 tiles, 844 s on two cores, to rounding of its rate."""
    assert Screen().plate_tiles == 86_400
    assert core_hours(Screen(), 102) * 3600 / 2 == pytest.approx(844, rel=0.005)
    assert Screen().plate_mb == pytest.approx(384 * 9 * 5 * 1080 * 1080 * 2 / 1e6)


def test_files_are_counted_as_ingest_writes_them(tmp_path: Path) -> None:
    wells, sites = ("A01", "A02", "C01"), (1, 2)
    images = tmp_path / "images"
    images.mkdir()
    for well in wells:
        for site in sites:
            tifffile.imwrite(
                images / f"P_{well}_s{site}_w1.tif", np.arange(1600, dtype=np.uint16).reshape(40, 40)
            )
    (tmp_path / "map.csv").write_text("well,perturbation\n" + "".join(f"{well},x\n" for well in wells))
    ingest_plates(
        IngestSettings(sources=(images,), out=tmp_path / "plates", platemap=tmp_path / "map.csv", workers=1)
    )
    found = sum(path.is_file() for path in (tmp_path / "plates").rglob("*"))
    assert found == plate_files(rows=2, wells=3, fields=6)


def test_what_grows_with_the_square_goes_on_so() -> None:
    rates = read_rates()
    power, seconds, memory = grown(rates, "retrieval", 1000)
    assert 1.9 < power < 2.1
    assert seconds == pytest.approx(100 * rates["retrieval_100"].value, rel=0.3)
    assert grown(rates, "retrieval", 100)[1:] == pytest.approx(
        (rates["retrieval_100"].value, rates["retrieval_memory_100"].value)
    )
    assert memory > rates["retrieval_memory_100"].value
