"""OME-Zarr plates of other programs, written here from real pixels, and our own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, InputError
from cellvim.ingest import ingest_plates
from cellvim.ingest.images import read_header, read_plane
from cellvim.ingest.sources import ImagePart
from cellvim.store import FieldKey, PlateReader, verify_plate
from tests.ingest.foreign_plates import (
    FLAT,
    NESTED,
    Style,
    styles,
    write_array,
    write_group,
    write_image,
    write_plate,
)

STAINS = ("DAPI", "GFP", "RFP")
Ingest = Callable[..., PlateReader]


@pytest.fixture(scope="module")
def planes(shared: Path) -> dict[str, np.ndarray]:
    """Two real wells, three stains, cut out where the cells are: well to (c, y, x)."""
    folder = shared / "data/nf1_schwann/images"
    wells = {}
    for well in ("B7", "D6"):
        names = [next(folder.glob(f"{well}_01_{channel}_*_*.tif")) for channel in (1, 2, 3)]
        wells[well] = np.stack([tifffile.imread(name)[300:400, 400:550] for name in names])
    return wells


@pytest.fixture
def ingest(tmp_path: Path) -> Ingest:
    def run(source: Path, **changes: Any) -> PlateReader:
        settings = IngestSettings(sources=(source,), out=tmp_path / "out", **changes)
        (plate,) = ingest_plates(settings).plates
        return PlateReader(plate.path)

    return run


def as_5d(planes: np.ndarray) -> np.ndarray:
    """(c, y, x) to (t, c, z, y, x)."""
    return planes[None, :, None]


@pytest.mark.parametrize("name", styles())
def test_every_pixel_of_every_style_is_tifffiles(
    name: str, planes: dict[str, np.ndarray], tmp_path: Path, ingest: Ingest
) -> None:
    style = styles()[name]
    wanted = {"B07": planes["B7"], "D06": planes["D6"]}
    if "c" not in style.axes:
        wanted = {well: pixels[:1] for well, pixels in wanted.items()}
    labels = STAINS[: len(wanted["B07"])]
    fields = {"B/07/0": as_5d(wanted["B07"]), "D/6/0": as_5d(wanted["D06"])}
    folder = write_plate(tmp_path / "P.zarr", fields, style, labels=labels)
    plate = ingest(folder)
    assert plate.name == "Screen_1"
    assert plate.channels == labels
    assert plate.pixel_size_um == (0.325 if style.named_axes is dict else None)
    assert plate.fields == (FieldKey("B07", 0), FieldKey("D06", 0))
    for field in plate.fields:
        np.testing.assert_array_equal(plate.read_field(field), wanted[field.well])
    assert verify_plate(plate.path) == []
