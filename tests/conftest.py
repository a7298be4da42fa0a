"""What every test folder shares: the real plates kept beside the project, and deterministic Hypothesis."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Where there is no GPU, Triton kernels run in Triton's interpreter. It has to know before Triton is imported, which
# torch may do.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.store import FieldKey, PlateReader, PlateWriter, find_plates

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("ci")

SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first, then those of many tests: no process is left with a long file at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -counts[item.path], item.path))


# Every real source, with the settings it takes; paths are below shared/data.
REAL_SOURCES: dict[str, dict[str, Any]] = {
    "bbbc013/images": {
        "pattern": "Channel{channel}-{}-{row}-{column}.tif",
        "plate": "1049",
        "channels": "GFP,DNA",
        "platemap": "bbbc013/platemap.csv",
    },
    "imagexpress/ImageXpress_exported": {"timepoint": 1},
    "imagexpress/Projection-Mix": {},
    "imagexpress/1well-3C-2S-Zmix-T": {"timepoint": 2},
    "operetta/operetta_plate": {},
    "nf1_schwann/images": {"pattern": "{well}_{}_{}_{field}_{channel}_{}.tif", "plate": "NF1"},
}

MakePlate = Callable[..., PlateReader]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real plates, profile tables and published models; not part of the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared with the real plates and tables, which are not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def real_plates(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every real plate, ingested once: plate name to PLATE.ome.zarr."""
    out = tmp_path_factory.mktemp("real")
    for source, content in REAL_SOURCES.items():
        settings = dict(content)
        if "platemap" in settings:
            settings["platemap"] = shared / "data" / settings["platemap"]
        ingest_plates(IngestSettings(sources=(shared / "data" / source,), out=out, **settings))
    return {PlateReader(path).name: path for path in find_plates([out])}


@pytest.fixture
def make_plate(tmp_path: Path) -> MakePlate:
    """Write a small plate of random blobs: `make_plate("P1", wells=("A01",), invalid=(("A01", 1, 0),))`."""

    def write(
        name: str = "P1",
        *,
        wells: tuple[str, ...] = ("A01", "A02", "B01", "B02"),
        sites: int = 2,
        channels: tuple[str, ...] = ("DNA", "ER", "Mito"),
        side_px: int = 48,
        invalid: tuple[tuple[str, int, int], ...] = (),
        platemap: pl.DataFrame | None = None,
    ) -> PlateReader:
        writer = PlateWriter(tmp_path / "plates", name, channels, np.dtype(np.uint16))
        writer.begin()
        fields = [FieldKey(well, site + 1) for well in wells for site in range(sites)]
        for number, key in enumerate(fields):
            is_valid = [(key.well, key.site, index) not in invalid for index in range(len(channels))]
            pixels = draw_blobs(len(channels), side_px, seed=(sum(map(ord, name)), number))
            pixels[~np.array(is_valid)] = 0
            writer.write_field(key, pixels, token=f"{name}-{number}", is_valid=is_valid)
        writer.finish(fields, platemap=platemap)
        return PlateReader(writer.path)

    return write


def draw_blobs(channels: int, side_px: int, *, seed: tuple[int, int]) -> np.ndarray:
    """Bright discs on a noisy background, (c, y, x) uint16."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px]
    pixels = generator.normal(300, 20, (channels, side_px, side_px))
    for _ in range(5):
        centre_y, centre_x, radius = *generator.uniform(0, side_px, 2), generator.uniform(3, 7)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        pixels += inside * generator.uniform(300, 2000, (channels, 1, 1))
    return pixels.clip(0, 65535).astype(np.uint16)
