"""The plate's page: whole without a script, safe from names, the same bytes each time, and right about the plate."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.ingest.qc_page import PlateView, render_page
from cellvim.ingest.qc_page.maps import plate_maps
from cellvim.ingest.qc_page.worst import worst_planes
from cellvim.store import FieldKey, PlateWriter
from cellvim.store.naming import well_name
from cellvim.store.quality import Encoding, quality_table
from cellvim.store.statistics import PlateStatistics

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)&amp;",
)
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects elements, and refuses any that is closed out of turn."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


def quality_of(wells: list[str], channels: tuple[str, ...], **changes: Mapping[str, Any]) -> pl.DataFrame:
    """One field per well: `quality_of(["A01"], ("DNA",), A01={"mean": 5.0})`."""
    generator = np.random.default_rng(0)
    rows = []
    for well in wells:
        for channel in channels:
            row: dict[str, Any] = {
                "Metadata_Well": well, "Metadata_Site": 1, "channel": channel, "is_valid": True,
                "focus_slope": -3 + 0.01 * generator.normal(), "saturated_fraction": 0.0, "empty_fraction": 0.0,
                "mean": 500 + generator.normal(), "p50": 400.0, "p99": 2000.0, "largest": 4000,
            }  # fmt: skip
            rows.append(row | dict(changes.get(well, {})))
    return quality_table(rows)


def page_of(
    tmp_path: Path, quality: pl.DataFrame, channels: tuple[str, ...], skipped: Mapping[str, str] | None = None
) -> str:
    """Render a page of a table; pictures come from a plate that has the field A01/1 alone."""
    writer = PlateWriter(tmp_path / "made", "P", channels, np.dtype(np.uint16))
    writer.begin()
    pixels = np.random.default_rng(0).integers(1, 999, (len(channels), 40, 50)).astype(np.uint16)
    for well in quality.filter(pl.col("flags").list.len() > 0)["Metadata_Well"].unique():
        writer.write_field(FieldKey(well, 1), pixels, token="t")  # noqa: S106
    percentiles = {
        channel: {"0.1": 1.0, "1": 5.0, "50": 9.0, "99": 90.0, "99.9": 99.0} for channel in channels
    }
    encodings = {channel: Encoding(4095, channels[0]) for channel in channels}
    check: Any = SimpleNamespace(plate=SimpleNamespace(evidence=channels[0]), shape=(40, 50))
    statistics = PlateStatistics(percentiles, pl.DataFrame(), quality, encodings)
    return render_page(PlateView(check, writer, skipped or {}), statistics)


WELLS_96 = [well_name(row, column) for row in range(1, 9) for column in range(1, 13)]


def test_a_real_plates_page_is_whole_and_covered_by_the_checksums(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_images(sites=5, shape=(64, 256))
    blank = tifffile.imread(folder / "P_B02_s3_w1.tif")
    blank[:30] = 0
    tifffile.imwrite(folder / "P_B02_s3_w1.tif", blank)
    (folder / "P_A01_s1_w2.tif").unlink()
    ingest_plates(make_settings(on_missing="fill"))
    content = (tmp_path / "out" / "P.cellvim" / "qc.html").read_bytes()
    recorded = json.loads((tmp_path / "out" / "P.cellvim" / "checksums.json").read_text())
    assert recorded["companion"]["qc.html"] == hashlib.sha256(content).hexdigest()
    assert "quality.parquet" in recorded["companion"]
    page = Page(content.decode())
    assert all(picture["alt"] for picture in page.all("img"))
    assert all(str(picture["src"]).startswith("data:image/png;base64,") for picture in page.all("img"))
    assert all(drawing.get("aria-label") or drawing.get("aria-hidden") for drawing in page.all("svg"))
    text = content.decode()
    assert "1 of 20 planes is suspicious" in text
    assert "1 plane was missing or damaged" in text
    assert "A01/1 w2" in text


def test_running_again_writes_the_same_page(
    write_images: WriteImages, make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_images(sites=2)
    (folder / "P_A01_s1_w2.tif").unlink()
    path = tmp_path / "out" / "P.cellvim" / "qc.html"
    ingest_plates(make_settings(on_missing="fill"))
    first = path.read_bytes()
    path.write_bytes(b"damaged")
    ingest_plates(make_settings(on_missing="fill"))
    assert path.read_bytes() == first


def test_nothing_runs_and_nothing_remote_is_asked_for_whatever_the_names(tmp_path: Path) -> None:
    quality = quality_of(WELLS_96, HOSTILE, A01={"focus_slope": -6.0})
    content = page_of(
        tmp_path, quality, HOSTILE, {name: name for name in ("H12/1", "C03/2")} | {"C04/1": HOSTILE[0]}
    )
    page = Page(content)
    assert {tag for tag, _ in page.found}.isdisjoint(
        {"script", "iframe", "object", "embed", "link", "form", "base"}
    )
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    addresses = [
        str(attributes[name])
        for _, attributes in page.found
        for name in ("src", "href")
        if name in attributes
    ]
    assert all(address.startswith("data:image/png") for address in addresses)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "49{" not in content
    assert not re.search(r"url\((?!#hatch)", content)


def test_a_384_well_plate_of_five_channels_stays_below_3_megabytes(tmp_path: Path) -> None:
    wells = [well_name(row, column) for row in range(1, 17) for column in range(1, 25)]
    bad = {well: {"focus_slope": -6.0} for well in wells[:30]}
    channels = ("DNA", "ER", "RNA", "AGP", "Mito")
    content = page_of(tmp_path, quality_of(wells, channels, **bad), channels)
    assert len(content.encode()) < 3_000_000
    assert len(Page(content).all("img")) == 2 * 24
    assert content.count('class="map"') == 30


def test_a_map_shows_means_of_valid_fields_in_the_plates_own_format() -> None:
    rows = [
        {
            "Metadata_Well": well,
            "Metadata_Site": site,
            "channel": "DNA",
            "is_valid": mean is not None,
            "mean": mean,
        }
        for well, site, mean in [("B03", 1, 100.0), ("B03", 2, None), ("B03", 3, 300.0), ("D06", 1, None)]
    ]
    drawn = plate_maps(quality_table(rows), ("DNA",), {"A01": "lost"})["DNA"]
    (found,) = [one for one in drawn if one.measure.key == "mean"]
    assert (found.rows, found.columns) == (4, 6)
    titles = {cell.title: cell.kind for cell in found.cells}
    assert list(titles) == [
        "B03: 200; 1 of 3 fields filled",
        "D06: 1 of 1 fields filled",
        "A01 is skipped: lost",
    ]
    assert [kind == "hatched" for kind in titles.values()] == [False, True, True]


def test_one_extreme_well_does_not_take_the_colours_from_the_others() -> None:
    means = {well: {"mean": 500.0 + 4 * number} for number, well in enumerate(WELLS_96)}
    means["A01"] = {"mean": 60000.0}
    drawn = plate_maps(quality_of(WELLS_96, ("DNA",), **means), ("DNA",), {})["DNA"]
    (found,) = [one for one in drawn if one.measure.key == "mean"]
    kinds = [cell.kind for cell in found.cells]
    assert len(set(kinds)) == 12
    assert kinds[0] == kinds[-1] == "v11"
    assert found.flagged == ("A01",)


def test_every_measure_has_its_turn_among_the_worst() -> None:
    bad: dict[str, Mapping[str, Any]] = {
        well: {"focus_slope": -5.0 - 0.01 * n} for n, well in enumerate(WELLS_96[:30])
    }
    bad["H11"] = {"saturated_fraction": 0.4}
    bad["H12"] = {"empty_fraction": 0.7, "mean": 1.0}
    found = worst_planes(quality_of(WELLS_96, ("DNA",), **bad))
    assert len(found) == 24
    assert {"H11", "H12"} <= {plane.well for plane in found}
    assert next(plane for plane in found if plane.well == "H12").flags == ("partly blank", "dark")
    assert found[0].well == WELLS_96[29]
    assert "usual in DNA" in found[0].reason


def test_a_good_plate_says_so(tmp_path: Path) -> None:
    content = page_of(tmp_path, quality_of(WELLS_96, ("DNA",)), ("DNA",))
    assert "None of 96 planes stands out." in content
    assert "Look at these first" not in content


@pytest.mark.parametrize("wells", [["A01"], ["AF48"]])
def test_the_smallest_and_the_largest_plate_are_drawn(tmp_path: Path, wells: list[str]) -> None:
    content = page_of(tmp_path, quality_of(wells, ("DNA",)), ("DNA",))
    assert f"{wells[0]}: " in content
    assert "only fixed bounds" in content


def test_a_well_without_any_field_left_is_hatched(tmp_path: Path) -> None:
    skipped = {"A02/1": "damaged", "A02/2": "lost", "A01/2": "damaged"}
    content = page_of(tmp_path, quality_of(["A01"], ("DNA",)), ("DNA",), skipped)
    assert "A02 is skipped: damaged" in content
    assert "A01 is skipped" not in content
