"""The plate that ingest is timed on: real planes, moved and noisy, under the names of an Operetta.

Of the size on the design's page: 24 wells x 4 fields x 5 channels = 480 LZW TIFFs of 1080 x 1080 uint16, 1,120 MB of
pixels. Every plane is a real one (`shared/data`: a Harmony measurement, Cell Painting of Schwann cells, BBBC013) that
was turned, shifted, and exposed anew with a camera's noise. The same call gives the same bytes.

Without real planes it is drawn; such a plate shows that the benchmark runs, not how fast anything is.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import tifffile
from numpy.typing import NDArray

Plane = NDArray[np.uint16]

STAINS = ("DAPI", "FITC", "RFP", "Fluorescein", "Cy5")
PIXEL_SIZE_UM = 1.19595
OFFSET, READ_NOISE, COUNTS_PER_ELECTRON = 100.0, 1.3, 0.46
"""Of a scientific CMOS camera, in counts: its black level, its noise in the dark, and its gain."""


@dataclass(frozen=True)
class PlateSize:
    """How large the plate is."""

    wells: int = 24
    fields: int = 4
    side_px: int = 1080

    @property
    def files(self) -> int:
        return self.wells * self.fields * len(STAINS)

    @property
    def pixel_bytes(self) -> int:
        return 2 * self.files * self.side_px**2


FULL = PlateSize()
QUICK = PlateSize(wells=2, fields=2, side_px=256)


def make_plate(folder: Path, size: PlateSize, shared: Path) -> Path:
    """Write the plate unless it is there; return the folder of its images.

    Args:
        folder: To be made. It is renamed into place when it is whole.
        size: Of the plate.
        shared: Folder with `data`, the real planes.
    """
    if folder.is_dir():
        return folder / "Images"
    partial = folder.with_name(f"{folder.name}.partial")
    images = partial / "Images"
    images.mkdir(parents=True, exist_ok=True)
    sources = source_planes(shared / "data", size.side_px)
    names = [
        (row, column, field, channel)
        for row, column in positions(size.wells)
        for field in range(1, size.fields + 1)
        for channel in range(1, len(STAINS) + 1)
    ]

    def write(name: tuple[int, int, int, int]) -> None:
        plane = expose(sources[name[3] - 1], seed=name)
        # As Harmony does: one strip, no predictor.
        tifffile.imwrite(
            images / file_name(*name),
            plane,
            compression="lzw",
            predictor=False,
            rowsperstrip=size.side_px,
            metadata=None,
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(write, names))
    (images / "Index.idx.xml").write_text(index_of(names, size.side_px), encoding="utf-8")
    partial.rename(folder)
    return folder / "Images"


def repeat_plate(images: Path, folder: Path, times: int) -> Path:
    """Make a plate of so many times the wells from the same files, by hard links: large, and quickly made."""
    target = folder / "Images"
    target.mkdir(parents=True)
    names = sorted(parse_name(path.name) for path in images.glob("*.tiff"))
    rows = max(row for row, *_ in names)
    side_px = len(tifffile.imread(images / file_name(*names[0])))
    repeated = []
    for time in range(times):
        for row, column, field, channel in names:
            repeated.append((row + time * rows, column, field, channel))
            source = images / file_name(row, column, field, channel)
            os.link(source, target / file_name(*repeated[-1]))
    (target / "Index.idx.xml").write_text(index_of(repeated, side_px), encoding="utf-8")
    return target


def positions(wells: int) -> list[tuple[int, int]]:
    """Rows and columns, counted from 1, of the first wells: two rows of them."""
    columns = -(-wells // 2)
    return [(1 + number // columns, 1 + number % columns) for number in range(wells)]


def file_name(row: int, column: int, field: int, channel: int) -> str:
    return f"r{row:02}c{column:02}f{field:02}p01-ch{channel}sk1fk1fl1.tiff"


def parse_name(name: str) -> tuple[int, int, int, int]:
    """Row, column, field and channel of `file_name`, each counted from 1."""
    stem, _, channel = name.partition("-ch")
    return int(stem[1:3]), int(stem[4:6]), int(stem[7:9]), int(channel.partition("sk")[0])


def source_planes(data: Path, side_px: int) -> list[NDArray[np.float32]]:
    """Signal of one real plane per stain in counts above the black level; drawn where there is none."""
    operetta, nf1 = data / "operetta" / "operetta_plate" / "Images", data / "nf1_schwann" / "images"
    # Values of nf1 are 8-bit ones times 257, those of bbbc013 8-bit: brought to a camera's range.
    real = (
        (nf1 / "B7_01_1_3_DAPI_001.tif", 1 / 16),
        (nf1 / "B7_01_2_3_GFP_001.tif", 1 / 16),
        (nf1 / "B7_01_3_3_RFP_001.tif", 1 / 16),
        (operetta / "r03c03f01p01-ch1sk1fk1fl1.tiff", 1 / 4),
        (data / "bbbc013" / "images" / "Channel1-01-A-01.tif", 16),
    )
    if not all(path.is_file() for path, _ in real):
        return [draw(side_px, seed=number) for number in range(len(STAINS))]
    return [fit(tifffile.imread(path).astype(np.float32) * scale, side_px) for path, scale in real]


def fit(plane: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    """Cut to a square, after mirroring what is too small: no pixel is interpolated."""
    short = [max(0, side_px - side) for side in plane.shape]
    mirrored = np.pad(plane, [(0, rest) for rest in short], mode="symmetric")
    return np.ascontiguousarray(mirrored[:side_px, :side_px])


def draw(side_px: int, seed: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px]
    signal = np.full((side_px, side_px), 50.0, dtype=np.float32)
    for _ in range(40):
        top, left, radius = *generator.uniform(0, side_px, 2), generator.uniform(4, 16)
        signal += 2000 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / radius**2).astype(np.float32)
    return signal


def expose(signal: NDArray[np.float32], seed: Sequence[int]) -> Plane:
    """Photograph a signal once more: turned, shifted, and with the noise of light and camera."""
    generator = np.random.default_rng(seed)
    turned = np.rot90(signal, int(generator.integers(4)))
    shifted = np.roll(turned, tuple(generator.integers(0, signal.shape[0], 2)), axis=(0, 1))
    electrons = shifted * generator.uniform(0.8, 1.25) / COUNTS_PER_ELECTRON
    noise = generator.standard_normal(shifted.shape, dtype=np.float32)
    counts = (electrons + noise * np.sqrt(electrons + READ_NOISE**2)) * COUNTS_PER_ELECTRON + OFFSET
    return np.asarray(np.rint(counts).clip(1, 65535), dtype=np.uint16)


def index_of(names: Sequence[tuple[int, int, int, int]], side_px: int) -> str:
    """Spell the index that Harmony 5 writes beside its images, as far as converters read it."""
    wells = sorted({name[:2] for name in names})
    plate = "".join(f'      <Well id="{row:02}{column:02}" />\n' for row, column in wells)
    listed = "".join(
        f"    <Well>\n      <id>{row:02}{column:02}</id>\n      <Row>{row}</Row>\n      <Col>{column}</Col>\n"
        + "".join(f'      <Image id="{_id(*name)}" />\n' for name in names if name[:2] == (row, column))
        + "    </Well>\n"
        for row, column in wells
    )
    images = "".join(_image(*name, side_px=side_px) for name in names)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5" Version="1">
  <User>cellvim</User>
  <InstrumentType>Sonata</InstrumentType>
  <Plates>
    <Plate>
      <PlateID>Ingest</PlateID>
      <MeasurementID>00000000-0000-0000-0000-000000000000</MeasurementID>
      <MeasurementStartTime>2026-01-01T00:00:00.0000000+00:00</MeasurementStartTime>
      <Name>Ingest</Name>
      <PlateTypeName>384</PlateTypeName>
      <PlateRows>16</PlateRows>
      <PlateColumns>24</PlateColumns>
{plate}    </Plate>
  </Plates>
  <Wells>
{listed}  </Wells>
  <Images>
{images}  </Images>
</EvaluationInputData>
"""


def _id(row: int, column: int, field: int, channel: int) -> str:
    return f"{row:02}{column:02}K1F{field}P1R{channel}"


def _image(row: int, column: int, field: int, channel: int, *, side_px: int) -> str:
    """One image; fields lie side by side in a square, as far apart as they are wide."""
    width_m = side_px * PIXEL_SIZE_UM * 1e-6
    values = {
        "id": _id(row, column, field, channel),
        "State": "Ok",
        "URL": file_name(row, column, field, channel),
        "Row": row,
        "Col": column,
        "FieldID": field,
        "PlaneID": 1,
        "TimepointID": 0,
        "ChannelID": channel,
        "FlimID": 1,
        "ChannelName": escape(STAINS[channel - 1]),
        "ImageType": "Signal",
        "AcquisitionType": "NonConfocal",
        "IlluminationType": "Epifluorescence",
        "ChannelType": "Fluorescence",
        'ImageResolutionX Unit="m"': PIXEL_SIZE_UM * 1e-6,
        'ImageResolutionY Unit="m"': PIXEL_SIZE_UM * 1e-6,
        "ImageSizeX": side_px,
        "ImageSizeY": side_px,
        "BinningX": 2,
        "BinningY": 2,
        "MaxIntensity": 65535,
        "CameraType": "AndorZylaCam",
        'PositionX Unit="m"': (field - 1) % 2 * width_m,
        'PositionY Unit="m"': (field - 1) // 2 * width_m,
        'PositionZ Unit="m"': 2e-05,
        'AbsPositionZ Unit="m"': 0.1375,
        'MeasurementTimeOffset Unit="s"': 0,
        "AbsTime": "2026-01-01T00:00:00.00+00:00",
        'MainExcitationWavelength Unit="nm"': 475,
        'MainEmissionWavelength Unit="nm"': 525,
        'ObjectiveMagnification Unit=""': 10,
        'ObjectiveNA Unit=""': 0.3,
        'ExposureTime Unit="s"': 0.006,
        "OrientationMatrix": "[[1,0,0,0],[0,-1,0,0],[0,0,1.33,0]]",
    }
    lines = (f"      <{tag}>{value}</{tag.partition(' ')[0]}>\n" for tag, value in values.items())
    return f'    <Image Version="1">\n{"".join(lines)}    </Image>\n'
