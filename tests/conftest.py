"""What every test folder shares: the real plates kept beside the project, and deterministic Hypothesis."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import settings

from cellvim.store import FieldKey, PlateReader, PlateWriter

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("ci")

SHARED = Path(__file__).parents[2] / "shared"

MakePlate = Callable[..., PlateReader]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real plates, profile tables and published models; not part of the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared with the real plates and tables, which are not part of the project")
    return SHARED


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
