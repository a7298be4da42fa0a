"""Rows of one plate: tiles or objects as they are, or averaged to fields and fields to wells."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray

from cellvim.config.embedding import Level
from cellvim.embed.blocks import feature_names
from cellvim.embed.cutting import ROW_PER_TILE, Cut
from cellvim.embed.fields import TiledField
from cellvim.store import FieldKey

PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
FIELD_COUNT, CONTENT = "Metadata_FieldCount", "Metadata_ContentFraction"

Row = dict[str, object]


class Rows:
    """Rows of one plate as they grow, fields in the order of the plate.

    Only one well is held in double precision, and no pixel of it.

    Args:
        plate_name: First key of every row.
        level: What a row of the finished table stands for.
        blocks: Blocks that get a table each; none if there is one table.
    """

    def __init__(self, plate_name: str, level: Level, blocks: Sequence[int] = ()) -> None:
        self.plate_name = plate_name
        self.level = level
        self.blocks = tuple(blocks)
        self._keys: list[Row] = []
        self._features: list[Float[ndarray, "rows features"]] = []
        self._well: list[tuple[FieldKey, Cut, Float[ndarray, " features"]]] = []

    def add(self, tiled: TiledField, encoded: Float[ndarray, "tile features"]) -> None:
        """Take in a field; its tiles are averaged in float64 unless they are the rows."""
        if self._well and self._well[0][0].well != tiled.key.well:
            self._close_well()
        if self.level in ROW_PER_TILE:
            columns = {name: values.tolist() for name, values in tiled.cut.columns.items()}
            key = self._key(tiled.key)
            self._keys += [
                {**key, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)
            ]
            self._features.append(encoded.astype(np.float32))
            return
        mean = encoded.mean(axis=0, dtype=np.float64)
        if self.level == "well":
            self._well.append((tiled.key, replace(tiled.cut, labels=None), mean))
        else:
            self._append({**self._key(tiled.key), **_counts([tiled.cut])}, mean)

    def to_table(self) -> pl.DataFrame:
        """All rows; null where a channel is not valid."""
        self._close_well()
        if not self._keys:
            return pl.DataFrame(schema={PLATE: pl.String, WELL: pl.String, SITE: pl.Int64})
        matrix = np.concatenate(self._features)
        features = pl.DataFrame(matrix, schema=feature_names(matrix.shape[1], self.blocks)).fill_nan(None)
        return pl.concat([pl.DataFrame(self._keys), features], how="horizontal")

    def _close_well(self) -> None:
        if not self._well:
            return
        cuts = [cut for _, cut, _ in self._well]
        with_content = np.array([cut.has_content for cut in cuts])
        key = self._key(self._well[0][0])
        counted = [cut for cut in cuts if cut.has_content] or cuts
        row = {PLATE: key[PLATE], WELL: key[WELL], FIELD_COUNT: len(counted), **_counts(counted)}
        if CONTENT in row:
            row[CONTENT] = _content(cuts)
        self._append(row, mean_of_fields(np.stack([mean for *_, mean in self._well]), with_content))
        self._well = []

    def _key(self, key: FieldKey) -> Row:
        return {PLATE: self.plate_name, WELL: key.well, SITE: key.site}

    def _append(self, row: Row, features: Float[ndarray, " features"]) -> None:
        self._keys.append(row)
        self._features.append(features.astype(np.float32)[None])


def mean_of_fields(
    features: Float[ndarray, "field features"], has_content: ndarray
) -> Float[ndarray, " features"]:
    """Average a well's fields, each counting the same; NaN where no field has a value.

    Fields without content do not count, but for features that no other field has. A well that has nothing else is
    the mean of all its fields, since emptiness may be what was done to it.
    """
    wanted = _nan_mean(features[has_content])
    return np.where(np.isnan(wanted), _nan_mean(features), wanted)


def _nan_mean(values: Float[ndarray, "field features"]) -> Float[ndarray, " features"]:
    """What `numpy.nanmean` gives, without its warning where there is nothing to average."""
    count = (~np.isnan(values)).sum(axis=0)
    total = np.nansum(values, axis=0, dtype=np.float64)
    return np.asarray(np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0))


def _counts(cuts: Sequence[Cut]) -> Row:
    """What the table says about the tiles or objects behind a row, if their number is not plain."""
    used = sum(len(cut.corners) for cut in cuts)
    if cuts[0].is_of_objects:
        return {"Metadata_ObjectCount": used}
    if cuts[0].content is None:
        return {}
    return {"Metadata_TileCount": used, CONTENT: _content(cuts)}


def _content(cuts: Sequence[Cut]) -> float:
    """Share of the fields that shows something, dropped tiles included."""
    return float(np.mean([cut.content for cut in cuts]))
