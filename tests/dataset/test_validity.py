"""A filled plane is never data: whatever bytes lie in it, nothing that is computed from the plate changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cellvim.config import CropSettings, EmbedSettings, ModelSettings
from cellvim.dataset import CropSource, TrainingIndex
from cellvim.embed import embed_plates
from cellvim.ingest.quality import measure_plane
from cellvim.model import ModelCard, save_encoder
from cellvim.model.encoder import ChannelEncoder
from cellvim.store import FieldKey, PlateReader, PlateWriter

CHANNELS = ("DNA", "ER", "Mito")
FILLED = {(FieldKey("A01", 1), 0), (FieldKey("B02", 1), 2), (FieldKey("B02", 2), 2)}
SIDE_PX = 48

WritePlate = Callable[[str], PlateReader]


@pytest.fixture
def write_plate(tmp_path: Path) -> WritePlate:
    """Write one and the same plate, but for what lies in its filled planes: ``zeros`` or ``garbage``."""

    def write(content: str) -> PlateReader:
        writer = PlateWriter(tmp_path / content, "P", CHANNELS, np.dtype(np.uint16))
        writer.begin()
        fields = [FieldKey(well, site) for well in ("A01", "A02", "B01", "B02") for site in (1, 2)]
        for number, key in enumerate(fields):
            pixels = np.random.default_rng(number).integers(100, 4000, (3, SIDE_PX, SIDE_PX), dtype=np.uint16)
            is_valid = [(key, channel) not in FILLED for channel in range(3)]
            for channel in np.flatnonzero(~np.array(is_valid)):
                pixels[channel] = 0 if content == "zeros" else pixels[channel] * 15
            quality = [measure_plane(plane) if ok else {} for plane, ok in zip(pixels, is_valid, strict=True)]
            writer.write_field(key, pixels, token=f"{number}", is_valid=is_valid, quality=quality)
        writer.finish(fields)
        return PlateReader(writer.path)

    return write


@pytest.fixture
def plates(write_plate: WritePlate) -> tuple[PlateReader, PlateReader]:
    zeros, garbage = write_plate("zeros"), write_plate("garbage")
    for key, channel in FILLED:
        assert not zeros.read_field(key)[channel].any()
        assert garbage.read_field(key)[channel].all()
    return zeros, garbage


@pytest.fixture
def model(tmp_path: Path) -> Path:
    settings = ModelSettings(width=16, depth=2, patch_px=8, decoder_width=16, position_grid=4)
    encoder = ChannelEncoder(settings, CHANNELS, generator=torch.Generator().manual_seed(0))
    card = ModelCard(
        model=settings, channels=CHANNELS, crop_px=32, mask_ratio=0.75, steps=0, seed=0, is_trained=False
    )
    save_encoder(tmp_path / "run", encoder.state_dict(), card)
    return tmp_path / "run"


def test_training_draws_no_field_with_a_filled_plane(plates: tuple[PlateReader, PlateReader]) -> None:
    batches = []
    for plate in plates:
        index = TrainingIndex([plate], crop_px=32)
        (group,) = index.groups
        drawn = {field for wells in group.wells for fields in wells for field in fields}
        assert drawn == set(plate.fields) - {key for key, _ in FILLED}
        source = CropSource(index, CropSettings(crop_px=32), batch_size=16, seed=1)
        batches.append(torch.cat([source.batch(step).images for step in range(4)]))
    torch.testing.assert_close(batches[0], batches[1], rtol=0, atol=0)


def test_statistics_do_not_see_filled_planes(plates: tuple[PlateReader, PlateReader]) -> None:
    zeros, garbage = plates
    assert zeros.intensity.percentiles == garbage.intensity.percentiles
    for key in zeros.fields:
        is_valid = zeros.is_valid(key)
        np.testing.assert_array_equal(is_valid, garbage.is_valid(key))
        moments = zeros.intensity.moments(key), garbage.intensity.moments(key)
        np.testing.assert_array_equal(moments[0][is_valid], moments[1][is_valid])


def test_quality_does_not_see_filled_planes(plates: tuple[PlateReader, PlateReader], tmp_path: Path) -> None:
    tables = [
        pl.read_parquet(tmp_path / plate.path.parent / "P.cellvim" / "quality.parquet") for plate in plates
    ]
    assert tables[0].equals(tables[1])
    filled = tables[0].filter(~pl.col("is_valid"))
    assert filled.height == len(FILLED)
    measures = filled.select(
        "focus_slope", "saturated_fraction", "empty_fraction", "mean", "p50", "p99", "largest"
    )
    assert measures.null_count().row(0) == (len(FILLED),) * measures.width
    assert filled["flags"].list.len().sum() == 0


@pytest.mark.parametrize("level", ["well", "field", "crop"])
@pytest.mark.parametrize("pool", ["channel", "all"])
def test_embedding_does_not_see_filled_planes(
    level: str, pool: str, plates: tuple[PlateReader, PlateReader], model: Path, tmp_path: Path
) -> None:
    tables, books = [], []
    for number, plate in enumerate(plates):
        out = tmp_path / f"{number}.parquet"
        content = {"plates": [plate.path], "model": model, "out": out, "level": level, "pool": pool}
        summary = embed_plates(
            EmbedSettings.checked({**content, "device": "cpu", "has_intensity": pool == "channel"})
        )
        tables.append(pl.read_parquet(out))
        books.append((summary.embedded, dict(summary.failed)))
    assert tables[0].equals(tables[1])
    assert books[0] == books[1]
    features = tables[0].select(pl.selectors.starts_with("emb_"))
    assert not features.null_count().sum_horizontal().item()
    if pool == "channel":
        # Both fields of B02 lack Mito, so no row of it can be complete.
        assert "B02" not in set(tables[0]["Metadata_Well"])


def test_thumbnails_do_not_show_filled_planes(
    plates: tuple[PlateReader, PlateReader], model: Path, tmp_path: Path
) -> None:
    pictures = []
    for number, plate in enumerate(plates):
        out = tmp_path / f"{number}.parquet"
        embed_plates(
            EmbedSettings.checked({"plates": [plate.path], "model": model, "out": out, "device": "cpu"})
        )
        pictures.append(pl.read_parquet(next(tmp_path.glob(f"{number}*humb*"))).sort("Metadata_Well"))
    assert pictures[0].equals(pictures[1])
