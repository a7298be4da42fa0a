"""Embed one plate: tiles to fields, fields to wells, and a thumbnail of each well."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Bool, Float
from numpy import ndarray

from cellvim.config import EmbedSettings
from cellvim.dataset import normalize_pixels, prefetched
from cellvim.embed.forward import encode_tiles
from cellvim.embed.thumbnail import THUMBNAIL_PX, compose_thumbnail
from cellvim.embed.tiling import tiles
from cellvim.errors import InputError
from cellvim.model import ChannelEncoder
from cellvim.progress import Advance
from cellvim.store import FieldKey, PlateReader
from cellvim.store.platemap import join_platemap

logger = logging.getLogger(__name__)

KEYS = ["Metadata_Plate", "Metadata_Well", "Metadata_Site"]
NO_VALID_PLANE = "a channel has no valid plane"


@dataclass(frozen=True)
class EmbeddedPlate:
    """Rows of one plate, as they will stand in the table."""

    table: pl.DataFrame
    thumbnails: pl.DataFrame
    failed: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` and the reason why it has no row."""
    skipped: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` and the reason why ingest did not write the well."""
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


class Rows:
    """Rows of one plate as they grow: one per tile at crop level, else one per field, averaged at once.

    Args:
        plate_name: First key of every row.
        level: What a row of the finished table stands for.
    """

    def __init__(self, plate_name: str, level: Literal["well", "field", "crop"]) -> None:
        self.plate_name = plate_name
        self.level = level
        self._keys: list[dict[str, object]] = []
        self._features: list[Float[ndarray, "rows features"]] = []

    def add(self, tiled: TiledField, encoded: Float[ndarray, "tile features"]) -> None:
        """Take in a field; its tiles are averaged in float64 unless they are the rows."""
        key = {
            "Metadata_Plate": self.plate_name,
            "Metadata_Well": tiled.key.well,
            "Metadata_Site": tiled.key.site,
        }
        if self.level == "crop":
            self._keys += [
                {**key, "Metadata_CropTop": top, "Metadata_CropLeft": left} for top, left in tiled.corners
            ]
            self._features.append(encoded)
        else:
            self._keys.append(key)
            self._features.append(encoded.mean(axis=0, dtype=np.float64, keepdims=True))

    def to_table(self) -> pl.DataFrame:
        """All rows, wells averaged over their fields so that every field counts the same; null where invalid."""
        if not self._keys:
            return pl.DataFrame(schema=dict.fromkeys(KEYS[:2], pl.String) | {KEYS[2]: pl.Int64})
        matrix = np.concatenate(self._features)
        names = [f"emb_{index:04d}" for index in range(matrix.shape[1])]
        features = pl.DataFrame(matrix, schema=names).fill_nan(None)
        table = pl.concat([pl.DataFrame(self._keys), features], how="horizontal")
        if self.level == "well":
            count = pl.len().alias("Metadata_FieldCount")
            table = table.group_by(KEYS[:2], maintain_order=True).agg(count, pl.col(names).mean())
        return table.with_columns(pl.col(names).cast(pl.Float32))


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
    thumbnails: dict[str, bytes] = {}
    rows = Rows(plate.name, settings.level)
    needs_all = encoder.needs_all_channels
    tiled_fields = prefetched(
        lambda key: tile_field(plate, key, tile_px, needs_all=needs_all),
        plate.fields,
        ahead=settings.readers,
    )
    for group in _grouped(_readable(tiled_fields, left_out, plate.name), settings.batch_size):
        for tiled, encoded in zip(group, _encode(group, encoder, plate, settings), strict=True):
            advance()
            thumbnails.setdefault(tiled.key.well, tiled.thumbnail)
            rows.add(tiled, encoded)
    table = rows.to_table()
    complete = _without_gaps(table)
    left_out |= _rows_with_gaps(table, complete) if settings.level != "well" else {}
    failed = _failures(plate, table, complete, left_out)
    if plate.platemap is not None and complete.height:
        complete = join_platemap(complete, plate.platemap)
    skipped = {f"{plate.name} {well}": why for well, why in plate.skipped.items()}
    pictures = _thumbnail_table(plate.name, thumbnails)
    return EmbeddedPlate(_metadata_first(complete), pictures, failed, skipped, left_out)


def tile_field(plate: PlateReader, key: FieldKey, tile_px: int, *, needs_all: bool) -> TiledField:
    """Read a field, normalise it and cut it; a field that cannot be used carries the reason instead.

    Args:
        plate: Plate to read.
        key: Field of the plate.
        tile_px: Side of a tile.
        needs_all: Whether the model can do without none of the channels.
    """
    is_valid = plate.is_valid(key)
    try:
        raw = plate.read_field(key)
        error = _unusable(is_valid, needs_all=needs_all)
    except InputError as unreadable:
        error = unreadable.found
    if error is not None:
        return TiledField(key, [], np.zeros((0, 0, 0, 0), np.float32), is_valid, b"", error)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    pixels = normalize_pixels(raw, bounds, plate.intensity.moments(key))
    height, width = pixels.shape[1:]
    corners = list(tiles(height, width, tile_px))
    cut = np.stack([pixels[is_valid, top : top + tile_px, left : left + tile_px] for top, left in corners])
    shown = np.where(is_valid[:, None, None], raw, 0)
    return TiledField(key, corners, cut, is_valid, compose_thumbnail(shown, plate, THUMBNAIL_PX))


def _unusable(is_valid: Bool[ndarray, " c"], *, needs_all: bool) -> str | None:
    if not is_valid.any():
        return "none of its planes is valid"
    if needs_all and not is_valid.all():
        return "a plane is not valid, and the model needs all channels together"
    return None


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


def _encode(
    group: Sequence[TiledField], encoder: ChannelEncoder, plate: PlateReader, settings: EmbedSettings
) -> list[Float[ndarray, "tile features"]]:
    """Features of each field's tiles; NaN for a channel that is not valid."""
    is_valid = group[0].is_valid
    channels = [channel for channel, valid in zip(plate.channels, is_valid, strict=True) if valid]
    encoded = encode_tiles(encoder, [tiled.tiles for tiled in group], channels, settings)
    if settings.pool == "channel" and not encoder.needs_all_channels:
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


def _without_gaps(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop_nulls([name for name in table.columns if name.startswith("emb_")])


def _rows_with_gaps(table: pl.DataFrame, complete: pl.DataFrame) -> dict[str, str]:
    """Fields that are not rows of their own, because a channel has no valid plane there."""
    lost = table.select(KEYS[:3]).unique(maintain_order=True).join(complete, on=KEYS[:3], how="anti")
    return {f"{plate} {well}/{site}": NO_VALID_PLANE for plate, well, site in lost.iter_rows()}


def _failures(
    plate: PlateReader, table: pl.DataFrame, complete: pl.DataFrame, left_out: dict[str, str]
) -> dict[str, str]:
    """Why each well of the plate that has no complete row has none."""
    present, embedded = set(table["Metadata_Well"]), set(complete["Metadata_Well"])
    failed = {}
    for well in plate.wells:
        if well not in embedded:
            reasons = [why for where, why in left_out.items() if where.startswith(f"{plate.name} {well}/")]
            failed[f"{plate.name} {well}"] = NO_VALID_PLANE if well in present else reasons[0]
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
