"""From the histograms of every field to the percentiles of the plate and the moments of its fields."""

import hashlib
from collections.abc import Sequence

import numpy as np
import polars as pl

from cellvim.errors import InputError
from cellvim.store.intensity import CLIP_KEYS, Counts, clipped_moments, percentiles_of, unpack_histograms
from cellvim.store.layout import histogram_name
from cellvim.store.place import Place
from cellvim.store.records import FieldRecord, damaged

Percentiles = dict[str, dict[str, float]]

_SCHEMA = {
    "Metadata_Well": pl.String,
    "Metadata_Site": pl.Int64,
    "channel": pl.String,
    "height_px": pl.Int64,
    "width_px": pl.Int64,
    "is_valid": pl.Boolean,
    "mean": pl.Float64,
    "std": pl.Float64,
    "pixels_sha256": pl.String,
}


def measure_plate(
    companion: Place, records: Sequence[FieldRecord], channels: Sequence[str]
) -> tuple[Percentiles, pl.DataFrame]:
    """Read every histogram twice: for the plate's percentiles, then for moments clipped at them.

    Returns:
        Percentiles per channel, and one row per field and channel in the order of `records` and `channels`.

    Raises:
        InputError: A channel has no valid plane in the whole plate, or a histogram is damaged.
    """
    percentiles = {
        channel: percentiles_of(counts)
        for channel, counts in zip(channels, _sum(companion, records, channels), strict=True)
    }
    rows: list[dict[str, object]] = []
    for record in records:
        counts = _load(companion, record, channels)
        for number, channel in enumerate(channels):
            low, high = (percentiles[channel][key] for key in CLIP_KEYS)
            mean, std = clipped_moments(counts[number], (low, high))
            rows.append(
                {
                    "Metadata_Well": record.well,
                    "Metadata_Site": record.site,
                    "channel": channel,
                    "height_px": record.height_px,
                    "width_px": record.width_px,
                    "is_valid": record.is_valid[number],
                    "mean": mean,
                    "std": std,
                    "pixels_sha256": record.pixels_sha256[number],
                }
            )
    return percentiles, pl.DataFrame(rows, schema=_SCHEMA)


def _sum(companion: Place, records: Sequence[FieldRecord], channels: Sequence[str]) -> Counts:
    total = np.zeros((len(channels), 1), dtype=np.int64)
    for record in records:
        valid = np.array(record.is_valid)
        total = total + _load(companion, record, channels) * valid[:, None]
    for channel, counts in zip(channels, total, strict=True):
        if not counts.any():
            found = f"channel {channel} has no valid plane in the whole plate"
            raise InputError(found, hint="leave the channel's files out, or repair some of them")
    return total


def _load(companion: Place, record: FieldRecord, channels: Sequence[str]) -> Counts:
    name = histogram_name(record.key)
    try:
        content = companion.read(name)
    except OSError as error:
        raise damaged(companion, name, error) from error
    if hashlib.sha256(content).hexdigest() != record.histogram_sha256:
        found = f"{companion.location}/{name} differs from what was written"
        raise InputError(found, hint="run the same `cellvim ingest` again, it writes this field anew")
    return unpack_histograms(content, channels)
