"""A tiny encoder, plates of given pixels, and one plate embedded in memory."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellvim.config import EmbedSettings, ModelSettings
from cellvim.embed.plate import EmbeddedPlate, embed_plate
from cellvim.model import ModelCard, load_encoder, save_encoder
from cellvim.model.encoder import ChannelEncoder
from cellvim.store import FieldKey, PlateReader, PlateWriter

WIDTH, TILE_PX = 16, 32

WritePlate = Callable[..., PlateReader]
EmbedOne = Callable[..., EmbeddedPlate]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An encoder of two blocks and width 16 that knows DNA, ER and Mito; its crops are 32 px."""
    settings = ModelSettings(width=WIDTH, depth=2, patch_px=8, decoder_width=16, position_grid=4)
    channels = ("DNA", "ER", "Mito")
    encoder = ChannelEncoder(settings, channels, generator=torch.Generator().manual_seed(0))
    card = ModelCard(
        model=settings,
        channels=channels,
        crop_px=TILE_PX,
        mask_ratio=0.75,
        steps=0,
        seed=0,
        is_trained=False,
    )
    save_encoder(tmp_path / "run", encoder.state_dict(), card)
    return tmp_path / "run"


@pytest.fixture
def write_plate(tmp_path: Path) -> WritePlate:
    """Write a plate of given pixels: `write_plate({FieldKey("A01", 1): pixels})`."""

    def write(
        fields: Mapping[FieldKey, np.ndarray],
        channels: tuple[str, ...] = ("DNA",),
        *,
        folder: str = "plates",
        invalid: Collection[tuple[FieldKey, int]] = (),
    ) -> PlateReader:
        writer = PlateWriter(tmp_path / folder, "P1", channels, np.dtype(np.uint16))
        writer.begin()
        for key, pixels in fields.items():
            is_valid = [(key, channel) not in invalid for channel in range(len(channels))]
            writer.write_field(key, pixels.astype(np.uint16), token=str(key), is_valid=is_valid)
        writer.finish(list(fields))
        return PlateReader(writer.path)

    return write


@pytest.fixture
def embed_one(model: Path) -> EmbedOne:
    """Embed a plate in memory: `embed_one(plate, level="field", overlap=0.5)`."""

    def embed(plate: PlateReader, **changes: Any) -> EmbeddedPlate:
        content = {"plates": [plate.path], "model": model, "out": Path("e.parquet"), "device": "cpu"}
        settings = EmbedSettings.checked({**content, **changes})
        encoder, card = load_encoder(model)
        tile_px = settings.tile_px or card.crop_px
        return embed_plate(plate, encoder, settings, tile_px=tile_px, advance=lambda: None)

    return embed
