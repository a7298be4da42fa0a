"""Plates to embed, written by cellvim's own store, and the encoders that embed them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cellvim.config import PRESETS, ModelSettings, Preset
from cellvim.model import ModelCard, save_encoder
from cellvim.model.encoder import ChannelEncoder
from cellvim.store import FieldKey, PlateWriter

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
ROWS = "ABCDEFGHIJKLMNOP"
TILE_PX = 224


@dataclass(frozen=True)
class PlateSize:
    """What a plate holds. Fields beyond the distinct ones are hard links to them, so that a plate takes little room."""

    wells: int
    sites: int
    side_px: int
    distinct: int

    @property
    def fields(self) -> int:
        return self.wells * self.sites

    @property
    def tiles(self) -> int:
        """Tiles of 224 px, or the whole field if it is smaller."""
        return self.fields * max(1, -(-self.side_px // TILE_PX)) ** 2

    @property
    def pixel_bytes(self) -> int:
        return self.fields * len(STAINS) * self.side_px**2 * 2


JUMP = PlateSize(wells=384, sites=9, side_px=1080, distinct=27)


def write_plate(folder: Path, name: str, size: PlateSize) -> Path:
    """Write a plate of bright discs under a camera's noise, always the same.

    Returns:
        NAME.ome.zarr in the folder.
    """
    writer = PlateWriter(folder, name, STAINS, np.dtype(np.uint16))
    writer.begin()
    wells = [f"{row}{column:02d}" for row in ROWS for column in range(1, 25)][: size.wells]
    fields = [FieldKey(well, site + 1) for well in wells for site in range(size.sites)]
    for number, key in enumerate(fields):
        if number < size.distinct:
            writer.write_field(key, draw_field(size.side_px, seed=number), token=f"{number}")
        else:
            _link_field(writer, fields[number % size.distinct], key)
    writer.finish(fields)
    return writer.path


def draw_field(side_px: int, *, seed: int) -> np.ndarray:
    """Discs the size of nuclei and shot noise, axes (c, y, x), uint16."""
    generator = np.random.default_rng(seed)
    y, x = np.ogrid[:side_px, :side_px]
    light = np.full((len(STAINS), side_px, side_px), 300.0)
    for _ in range(max(4, side_px**2 // 6000)):
        centre_y, centre_x = generator.uniform(0, side_px, 2)
        radius = generator.uniform(8, 20)
        top, left = max(0, int(centre_y - radius)), max(0, int(centre_x - radius))
        window = slice(top, int(centre_y + radius) + 1), slice(left, int(centre_x + radius) + 1)
        inside = (y[window[0]] - centre_y) ** 2 + (x[:, window[1]] - centre_x) ** 2 < radius**2
        light[:, *window] += inside * generator.uniform(300, 2000, (len(STAINS), 1, 1))
    return generator.poisson(light).clip(0, 65535).astype(np.uint16)


def write_model(folder: Path, preset: Preset) -> Path:
    """Write an untrained encoder of a preset."""
    encoder = make_encoder(preset)
    card = ModelCard(
        model=encoder.settings,
        channels=STAINS,
        crop_px=TILE_PX,
        mask_ratio=0.75,
        steps=0,
        seed=0,
        is_trained=False,
    )
    save_encoder(folder / preset, encoder.state_dict(), card)
    return folder / preset


def make_encoder(preset: Preset, channels: Sequence[str] = STAINS) -> ChannelEncoder:
    settings = ModelSettings.model_validate(PRESETS[preset])
    return ChannelEncoder(settings, tuple(channels), generator=torch.Generator().manual_seed(0)).eval()


def _link_field(writer: PlateWriter, source: FieldKey, target: FieldKey) -> None:
    record = writer.record(source)
    assert record is not None, "written before it is repeated"  # noqa: S101
    for file in record.files:
        link = writer.path / target.group / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        os.link(writer.path / source.group / file.name, link)
    companion = writer.companion
    histogram = companion.read(f"fields/{source.well}-{source.site}.histogram")
    companion.write(f"fields/{target.well}-{target.site}.histogram", histogram)
    repeated = replace(record, well=target.well, site=target.site, token=f"{target}")
    companion.write(f"fields/{target.well}-{target.site}.json", repeated.to_bytes())
