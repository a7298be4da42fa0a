"""Plates for the soak: real images and drawn ones, each plate unlike the one before, with a plate map."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tifffile

from cellvim.config import ModelSettings
from cellvim.store.naming import well_name
from pipelines.torture.screen import copy_screen
from pipelines.torture.stages import MODEL

CROP_PX = 64
DRAWN_WELLS = 16
REAL_WELLS = 12
BBBC013_WELLS = 24


@dataclass(frozen=True)
class SoakPlate:
    """One plate as it lies on a microscope's disk.

    Attributes:
        kind: Of its source; plates of one kind share their stains.
        source: Folder of images.
        settings: Of ingest, the plate map among them, as its flags are called.
        wells: How many there are.
    """

    kind: str
    source: Path
    settings: Mapping[str, str]
    wells: int

    @property
    def flags(self) -> list[str]:
        """Of `cellvim ingest`."""
        return [part for name, value in self.settings.items() for part in (f"--{name}", value)]


def make_plate(data: Path, folder: Path, number: int) -> SoakPlate:
    """Put plate `number` into a folder: drawn, real, and real with its own plate map, in turn."""
    folder.mkdir(parents=True)
    kind = [*KINDS][number % len(KINDS)]
    return KINDS[kind](data, folder, number)


def write_models(folder: Path) -> Mapping[str, Path]:
    """Kind of plate to a small untrained encoder of its stains."""
    import torch  # takes seconds

    from cellvim.model import ModelCard, save_encoder
    from cellvim.model.encoder import ChannelEncoder

    settings = ModelSettings.model_validate(MODEL)
    for kind, channels in CHANNELS.items():
        encoder = ChannelEncoder(settings, channels, generator=torch.Generator().manual_seed(0))
        card = ModelCard(
            model=settings,
            channels=channels,
            crop_px=CROP_PX,
            mask_ratio=0.75,
            steps=0,
            seed=0,
            is_trained=False,
        )
        save_encoder(folder / kind, encoder.state_dict(), card)
    return {kind: folder / kind for kind in CHANNELS}


def _drawn(_data: Path, folder: Path, number: int) -> SoakPlate:
    """Fields of Poisson noise on a gradient, one of them brighter, as a `--pattern` reads them."""
    draw = np.random.default_rng(number)
    images = folder / "images"
    images.mkdir()
    for place in range(DRAWN_WELLS):
        well = well_name(place // 4 + 1, place % 4 + 1)
        for channel in CHANNELS["drawn"]:
            slope = np.linspace(200, 2000, 128) * draw.uniform(0.5, 1.5, (128, 1)) * (1 + place % 4)
            tifffile.imwrite(
                images / f"{well}_1_{channel}.tif", draw.poisson(slope).astype(np.uint16), compression="zlib"
            )
    settings = {
        "pattern": "{well}_{field}_{channel}.tif",
        "plate": f"D{number}",
        "platemap": str(_map(folder, 4, 4)),
    }
    return SoakPlate("drawn", images, settings, DRAWN_WELLS)


def _imagexpress(data: Path, folder: Path, number: int) -> SoakPlate:
    source = copy_screen(data, folder / "images", wells=REAL_WELLS)
    # A plate of another name: outputs of several plates may then lie beside each other.
    renamed = source.rename(source.with_name(f"9987_Plate_{number}"))
    return SoakPlate("imagexpress", renamed, {"platemap": str(_map(folder, 1, REAL_WELLS))}, REAL_WELLS)


def _bbbc013(data: Path, folder: Path, number: int) -> SoakPlate:
    images = folder / "images"
    images.mkdir()
    names = sorted((data / "bbbc013/images").glob("Channel1-*"))[:BBBC013_WELLS]
    for path in [
        other for name in names for other in (name, name.with_name(name.name.replace("Channel1", "Channel2")))
    ]:
        (images / path.name).write_bytes(path.read_bytes())
    settings = {
        "pattern": "Channel{channel}-{}-{row}-{column}.tif",
        "plate": f"B{number}",
        "channels": "GFP,DNA",
        "platemap": str(folder / "map.csv"),
    }
    table = pl.read_csv(data / "bbbc013/platemap.csv", infer_schema=False).with_columns(
        pl.lit(f"B{number}").alias("Metadata_Plate")
    )
    table.write_csv(folder / "map.csv")
    return SoakPlate("bbbc013", images, settings, BBBC013_WELLS)


def _map(folder: Path, rows: int, columns: int) -> Path:
    """A quarter of the wells are controls, the others three perturbations."""
    names = [well_name(row + 1, column + 1) for row in range(rows) for column in range(columns)]
    kinds = [place % 4 for place in range(len(names))]
    table = {
        "well": names,
        "perturbation": [f"drug{kind}" if kind else "DMSO" for kind in kinds],
        "control_type": [None if kind else "negcon" for kind in kinds],
    }
    pl.DataFrame(table).write_csv(folder / "map.csv")
    return folder / "map.csv"


KINDS: Mapping[str, Callable[[Path, Path, int], SoakPlate]] = {
    "drawn": _drawn,
    "imagexpress": _imagexpress,
    "bbbc013": _bbbc013,
}
CHANNELS: Mapping[str, tuple[str, ...]] = {
    "drawn": ("DNA", "ER", "Mito"),
    "imagexpress": ("DAPI", "FITC", "Texas Red"),
    "bbbc013": ("GFP", "DNA"),
}
"""Stains of each kind of plate."""
