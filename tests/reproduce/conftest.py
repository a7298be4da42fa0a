"""A screen small enough for a chain to be run in seconds: images, plates, an untrained encoder, a table, a report."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.cli import app

Call = Callable[[Path, list[str]], None]

PATTERN = "{plate}_{well}_{field}_{channel}.tif"
CHAIN = (
    ["ingest", "images", "--out", "plates", "--platemap", "platemap.csv", "--pattern", PATTERN],
    ["pretrain", "plates", "--out", "run", "--config", "settings of mine.yaml", "--steps", "0"],
    ["embed", "plates", "--model", "run", "--out", "table.parquet"],
    [
        "evaluate", "table.parquet", "--out=report", "--json", "--tasks", "activity", "--null-size", "50", "--bootstraps",
        "10",
    ],
)  # fmt: skip
SETTINGS = (
    "batch_size: 2\ncrops: {crop_px: 32}\nmodel: {depth: 1, width: 24, decoder_depth: 1, decoder_width: 24}\n"
)


def call_here(folder: Path, words: list[str]) -> None:
    """Run a command in this process as `cellvim` would: in a folder, under its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["/usr/bin/cellvim", *words])
        app(words, standalone_mode=False)


@pytest.fixture(scope="session")
def call() -> Call:
    return call_here


def draw_screen(folder: Path) -> None:
    """Two plates of nine wells: three controls, and two drugs in three wells each."""
    generator = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir(parents=True)
    rows = []
    for plate in ("P1", "P2"):
        for number, well in enumerate(("A01", "A02", "A03", "B01", "B02", "B03", "C01", "C02", "C03")):
            kind = number % 3
            rows.append((plate, well, f"drug {kind}" if kind else "DMSO", "" if kind else "negcon"))
            for channel in ("DNA", "ER"):
                pixels = generator.poisson(200, (48, 48)) + 60 * kind * (np.arange(48) % (4 * kind + 2) == 0)
                tifffile.imwrite(images / f"{plate}_{well}_1_{channel}.tif", pixels.astype(np.uint16))
    with (folder / "platemap.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("plate", "well", "perturbation", "control_type"), *rows])
    (folder / "settings of mine.yaml").write_text(SETTINGS)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The screen with all its results. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "screen"
    draw_screen(folder)
    for words in CHAIN:
        call_here(folder, words)
    return folder
