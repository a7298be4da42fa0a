"""Embed one plate: tiles to fields, fields to wells, and a thumbnail of each well."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from cellvim.config import EmbedSettings
from cellvim.dataset import normalize_pixels, prefetched
from cellvim.embed.thumbnail import THUMBNAIL_PX, compose_thumbnail
from cellvim.embed.tiling import tiles
from cellvim.errors import InputError
from cellvim.model import ChannelEncoder
from cellvim.progress import Advance
from cellvim.store import FieldKey, PlateReader
from cellvim.store.platemap import join_platemap

logger = logging.getLogger(__name__)

KEYS = ["Metadata_Plate", "Metadata_Well", "Metadata_Site", "Metadata_CropTop", "Metadata_CropLeft"]
KEYS_OF_LEVEL = {"well": KEYS[:2], "field": KEYS[:3], "crop": KEYS}


@dataclass(frozen=True)
class EmbeddedPlate:
    """Rows of one plate, as they will stand in the table."""

    table: pl.DataFrame
    thumbnails: pl.DataFrame
    failed: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` and the reason why it has no row."""
    left_out: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL/SITE` and the reason why the field is not part of its well's row."""

    @property
    def well_count(self) -> int:
        return self.table["Metadata_Well"].n_unique()


@dataclass(frozen=True)
class TiledField:
    """A normalised field, cut into tiles."""

    key: FieldKey
    corners: list[tuple[int, int]]
    tiles: Float[ndarray, "tile c y x"]
    is_valid: Bool[ndarray, " c"]
    thumbnail: bytes
    error: str | None = None


def embed_plate(
    plate: PlateReader, encoder: ChannelEncoder, settings: EmbedSettings, *, tile_px: int, advance: Advance
) -> EmbeddedPlate:
    """Embed every field of a plate and average up to the wanted level.

    A channel whose plane was filled at ingest is not shown to the encoder, and a field that cannot be read is
    left out. A well fails if that leaves it without any field, or a channel without any valid plane.

    Args:
        plate: Plate to read.
        encoder: Model in evaluation mode.
        settings: Level, pooling, blocks.
        tile_px: Side of a tile; smaller fields are one tile.
        advance: Called once per field.
    """
    left_out: dict[str, str] = {}
    rows: list[dict[str, object]] = []
    features: list[Float[ndarray, "tile features"]] = []
    thumbnails: dict[str, bytes] = {}
    tiled_fields = prefetched(lambda key: tile_field(plate, key, tile_px), plate.fields)
    for group in _grouped(_readable(tiled_fields, left_out, plate.name), settings.batch_size):
        for tiled, encoded in zip(group, _encode(group, encoder, plate, settings), strict=True):
            advance()
            thumbnails.setdefault(tiled.key.well, tiled.thumbnail)
            rows += [_row(plate, tiled.key, corner) for corner in tiled.corners]
            features.append(encoded)
    table = _aggregate(rows, features, settings)
    failed = _failures(plate, table, left_out)
    table = _without_gaps(table)
    if plate.platemap is not None and table.height:
        table = join_platemap(table, plate.platemap)
    return EmbeddedPlate(_metadata_first(table), _thumbnail_table(plate.name, thumbnails), failed, left_out)


def tile_field(plate: PlateReader, key: FieldKey, tile_px: int) -> TiledField:
    """Read a field, normalise it and cut it; a field that cannot be read carries the reason instead."""
    is_valid = plate.is_valid(key)
    try:
        raw = plate.read_field(key)
    except InputError as error:
        return TiledField(key, [], np.zeros((0, 0, 0, 0), np.float32), is_valid, b"", error.found)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    pixels = normalize_pixels(raw, bounds, plate.intensity.moments(key))
    height, width = pixels.shape[1:]
    corners = list(tiles(height, width, tile_px))
    cut = np.stack([pixels[is_valid, top : top + tile_px, left : left + tile_px] for top, left in corners])
    return TiledField(key, corners, cut, is_valid, compose_thumbnail(raw, plate, THUMBNAIL_PX))


def _readable(
    fields: Iterator[TiledField], left_out: dict[str, str], plate_name: str
) -> Iterator[TiledField]:
    for tiled in fields:
        if tiled.error is None:
            yield tiled
        else:
            logger.warning("field left out: %s", tiled.error)
            left_out[f"{plate_name} {tiled.key}"] = tiled.error


def _grouped(fields: Iterator[TiledField], batch_size: int) -> Iterator[list[TiledField]]:
    """Gather neighbouring fields into groups that fill a batch and can be stacked."""
    group: list[TiledField] = []
    for tiled in fields:
        if group and not _can_stack(group[0], tiled):
            yield group
            group = []
        group.append(tiled)
        if sum(len(member.corners) for member in group) >= batch_size:
            yield group
            group = []
    if group:
        yield group


def _can_stack(left: TiledField, right: TiledField) -> bool:
    is_same_shape = left.tiles.shape[1:] == right.tiles.shape[1:]
    return is_same_shape and bool((left.is_valid == right.is_valid).all())


@torch.inference_mode()
def _encode(
    group: Sequence[TiledField], encoder: ChannelEncoder, plate: PlateReader, settings: EmbedSettings
) -> list[Float[ndarray, "tile features"]]:
    """Features of each field's tiles; NaN for a channel that is not valid."""
    is_valid = group[0].is_valid
    channels = [channel for channel, valid in zip(plate.channels, is_valid, strict=True) if valid]
    stacked = torch.from_numpy(np.concatenate([tiled.tiles for tiled in group]))
    device = next(encoder.parameters()).device
    parts = [
        encoder.features(batch.to(device), channels, pool=settings.pool, layers=settings.layers).float().cpu()
        for batch in stacked.split(settings.batch_size)
    ]
    encoded = torch.cat(parts).numpy()
    if settings.pool == "channel":
        encoded = _spread_channels(encoded, is_valid)
    if settings.has_intensity:
        moments = [np.tile(_moments(plate, tiled), (len(tiled.corners), 1)) for tiled in group]
        encoded = np.concatenate([encoded, np.concatenate(moments)], axis=1)
    borders = np.cumsum([len(tiled.corners) for tiled in group])[:-1]
    return np.split(encoded, borders)


def _spread_channels(
    encoded: Float[ndarray, "tile valid_features"], is_valid: Bool[ndarray, " c"]
) -> Float[ndarray, "tile features"]:
    per_channel = encoded.reshape(len(encoded), int(is_valid.sum()), -1)
    spread = np.full((len(encoded), is_valid.size, per_channel.shape[2]), np.nan, np.float32)
    spread[:, is_valid] = per_channel
    return spread.reshape(len(encoded), -1)


def _moments(plate: PlateReader, tiled: TiledField) -> Float[ndarray, " features"]:
    moments = plate.intensity.moments(tiled.key).astype(np.float32)
    moments[~tiled.is_valid] = np.nan
    return moments.reshape(-1)


def _row(plate: PlateReader, key: FieldKey, corner: tuple[int, int]) -> dict[str, object]:
    return dict(zip(KEYS, (plate.name, key.well, key.site, *corner), strict=True))


def _aggregate(
    rows: list[dict[str, object]], features: list[Float[ndarray, "tile features"]], settings: EmbedSettings
) -> pl.DataFrame:
    """Average tiles to fields, then fields to wells, so that every field of a well counts the same."""
    if not rows:
        return pl.DataFrame(schema={"Metadata_Plate": pl.String, "Metadata_Well": pl.String})
    matrix = np.concatenate(features)
    names = [f"emb_{index:04d}" for index in range(matrix.shape[1])]
    table = pl.concat(
        [pl.DataFrame(rows), pl.DataFrame(matrix, schema=names).fill_nan(None)], how="horizontal"
    )
    for level in ("field", "well"):
        if settings.level == "crop" or (settings.level == "field" and level == "well"):
            break
        means = [pl.col(names).cast(pl.Float64).mean()]
        fields = [pl.len().alias("Metadata_FieldCount")] if level == "well" else []
        table = table.group_by(KEYS_OF_LEVEL[level], maintain_order=True).agg(*fields, *means)
    return table.with_columns(pl.col(names).cast(pl.Float32))


def _without_gaps(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop_nulls([name for name in table.columns if name.startswith("emb_")])


def _failures(plate: PlateReader, table: pl.DataFrame, left_out: dict[str, str]) -> dict[str, str]:
    """Why each well of the plate that has no complete row has none."""
    complete, present = set(_without_gaps(table)["Metadata_Well"]), set(table["Metadata_Well"])
    failed = {}
    for well in (*plate.wells, *plate.skipped):
        if well in complete:
            continue
        reasons = [why for where, why in left_out.items() if where.startswith(f"{plate.name} {well}/")]
        gap = "a channel is valid in none of its fields"
        why = gap if well in present else plate.skipped.get(well) or (reasons or ["no field"])[0]
        failed[f"{plate.name} {well}"] = why
    return failed


def _metadata_first(table: pl.DataFrame) -> pl.DataFrame:
    metadata = [name for name in table.columns if name.startswith("Metadata_")]
    return table.select(*metadata, pl.exclude(metadata))


def _thumbnail_table(plate_name: str, thumbnails: dict[str, bytes]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "Metadata_Plate": [plate_name] * len(thumbnails),
            "Metadata_Well": list(thumbnails),
            "png": list(thumbnails.values()),
        },
        schema={"Metadata_Plate": pl.String, "Metadata_Well": pl.String, "png": pl.Binary},
    )
