"""Embed one plate: fields to tiles, tiles to rows, and a thumbnail of each well."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import polars as pl

from cellvim.config import EmbedSettings
from cellvim.dataset import prefetched
from cellvim.embed.cutting import Cutting
from cellvim.embed.encode import FieldEncoder
from cellvim.embed.fields import TiledField, picture_field, tile_field
from cellvim.embed.rows import PLATE, SITE, WELL, Rows
from cellvim.model import ChannelEncoder
from cellvim.progress import Advance
from cellvim.store import FieldKey, PlateReader
from cellvim.store.platemap import join_platemap

logger = logging.getLogger(__name__)

NO_VALID_PLANE = "a channel has no valid plane"
NO_OBJECT = "no whole object in its label images"


@dataclass(frozen=True)
class EmbeddedPlate:
    """Rows of one plate, as they will stand in the table."""

    table: pl.DataFrame
    """With `each_layer`, features of all blocks, each to be taken out by `table_of_block`."""
    thumbnails: pl.DataFrame
    failed: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` and the reason why it has no row."""
    skipped: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` and the reason why ingest did not write the well."""
    left_out: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL/SITE` and the reason why the field is not part of its well's row."""
    empty: dict[str, str] = field(default_factory=dict)
    """`PLATE WELL` of wells without a row because their label images hold no whole object, which is no failure."""
    tallies: dict[str, int] = field(default_factory=dict)
    """Tiles or objects, and how many of them were dropped; empty if nothing could be."""

    @property
    def well_count(self) -> int:
        return self.table[WELL].n_unique()


def embed_plate(
    plate: PlateReader, encoder: ChannelEncoder, settings: EmbedSettings, *, tile_px: int, advance: Advance
) -> EmbeddedPlate:
    """Embed every field of a plate and average up to the wanted level.

    A channel whose plane was filled at ingest is not shown to the encoder, and a field that cannot be read, or
    whose label image cannot be used, is left out. A well fails if that leaves it without any field, or a channel
    without any valid plane. A field whose label image holds no whole object adds nothing to its well; a well of such
    fields alone has no row and is counted apart, for wells without a cell are what toxic compounds make.

    Args:
        plate: Plate to read.
        encoder: Model in evaluation mode.
        settings: Level, pooling, blocks, tiles, label images.
        tile_px: Side of a tile; smaller fields are one tile.
        advance: Called once per field.

    Raises:
        InputError: The plate has no label images, but is to have.
    """
    left_out: dict[str, str] = {}
    tallies: Counter[str] = Counter()
    thumbnails: dict[str, bytes] = {}
    fields = FieldEncoder(encoder, plate, settings)
    rows = Rows(plate.name, settings.level, fields.blocks)
    cutting = Cutting.of_plate(plate, settings, tile_px)
    needs_all = encoder.needs_all_channels
    tiled_fields = _read_ahead(plate, cutting, needs_all=needs_all, ahead=settings.readers)
    usable = _usable(tiled_fields, left_out, tallies, plate.name, advance)
    for tiled, encoded in fields.encode(usable):
        if tiled.key.well not in thumbnails:
            thumbnails[tiled.key.well] = tiled.thumbnail or picture_field(plate, tiled.key)
        rows.add(tiled, encoded)
    table = rows.to_table()
    complete = _without_gaps(table)
    left_out |= _rows_with_gaps(table, complete) if settings.level != "well" else {}
    failed, empty = _wells_without_row(plate, table, complete, left_out)
    if plate.platemap is not None and complete.height:
        complete = join_platemap(complete, plate.platemap)
    skipped = {f"{plate.name} {well}": why for well, why in plate.skipped.items()}
    pictures = _thumbnail_table(plate.name, thumbnails)
    return EmbeddedPlate(_metadata_first(complete), pictures, failed, skipped, left_out, empty, dict(tallies))


def _read_ahead(plate: PlateReader, cutting: Cutting, *, needs_all: bool, ahead: int) -> Iterator[TiledField]:
    # The first field of each well is its picture; if it cannot be used, the next is read once more for that.
    pictured = {key.well: key for key in reversed(plate.fields)}

    def read(key: FieldKey) -> TiledField:
        return tile_field(plate, key, cutting, needs_all=needs_all, is_pictured=pictured[key.well] == key)

    return prefetched(read, plate.fields, ahead=ahead)


def _usable(
    fields: Iterable[TiledField],
    left_out: dict[str, str],
    tallies: Counter[str],
    plate_name: str,
    advance: Advance,
) -> Iterator[TiledField]:
    for tiled in fields:
        advance()
        tallies.update(tiled.cut.counts)
        if tiled.error is not None:
            logger.warning("field left out: %s", tiled.error)
            left_out[f"{plate_name} {tiled.key}"] = tiled.error
        elif tiled.cut.corners:
            yield tiled
        else:
            logger.info("plate %s field %s: no whole object", plate_name, tiled.key)


def _without_gaps(table: pl.DataFrame) -> pl.DataFrame:
    return table.drop_nulls([name for name in table.columns if not name.startswith("Metadata_")])


def _rows_with_gaps(table: pl.DataFrame, complete: pl.DataFrame) -> dict[str, str]:
    """Fields that are not rows of their own, because a channel has no valid plane there."""
    keys = [PLATE, WELL, SITE]
    lost = table.select(keys).unique(maintain_order=True).join(complete, on=keys, how="anti")
    return {f"{plate} {well}/{site}": NO_VALID_PLANE for plate, well, site in lost.iter_rows()}


def _wells_without_row(
    plate: PlateReader, table: pl.DataFrame, complete: pl.DataFrame, left_out: dict[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Wells of the plate that failed, and wells that are empty: those of which every field could be looked at."""
    present, embedded = set(table[WELL]), set(complete[WELL])
    failed, empty = {}, {}
    for well in plate.wells:
        if well in embedded:
            continue
        where = f"{plate.name} {well}"
        reasons = [why for field, why in left_out.items() if field.startswith(f"{where}/")]
        if well in present:
            failed[where] = NO_VALID_PLANE
        elif reasons:
            failed[where] = reasons[0]
        else:
            empty[where] = NO_OBJECT
    return failed, empty


def _metadata_first(table: pl.DataFrame) -> pl.DataFrame:
    metadata = [name for name in table.columns if name.startswith("Metadata_")]
    return table.select(*metadata, pl.exclude(metadata))


def _thumbnail_table(plate_name: str, thumbnails: dict[str, bytes]) -> pl.DataFrame:
    return pl.DataFrame(
        {PLATE: [plate_name] * len(thumbnails), WELL: list(thumbnails), "png": list(thumbnails.values())},
        schema={PLATE: pl.String, WELL: pl.String, "png": pl.Binary},
    )
