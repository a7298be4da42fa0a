"""From the histograms of every field to the percentiles of the plate and the moments of its fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from cellvim.errors import InputError
from cellvim.provenance import sha256_of
from cellvim.store.intensity import CLIP_KEYS, Counts, clipped_moments, percentiles_of, unpack_histograms
from cellvim.store.layout import histogram_name
from cellvim.store.place import Place
from cellvim.store.quality import Encoding, encoding_of, plane_row, quality_table
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


@dataclass(frozen=True)
class PlateStatistics:
    """What the pixels of a whole plate say.

    Attributes:
        percentiles: Channel to percentile to value.
        fields: One row per field and channel: size, validity, clipped moments, checksum.
        quality: One row per field and channel, see `cellvim.store.quality.SCHEMA`.
        encodings: Channel to how its camera's values lie in the data type.
    """

    percentiles: Percentiles
    fields: pl.DataFrame
    quality: pl.DataFrame
    encodings: Mapping[str, Encoding]


def measure_plate(
    companion: Place, records: Sequence[FieldRecord], channels: Sequence[str]
) -> PlateStatistics:
    """Read every histogram twice: for the plate's percentiles, then for each plane beside the whole plate.

    Rows are in the order of `records` and `channels`.

    Raises:
        InputError: A channel has no valid plane in the whole plate, or a histogram is damaged.
    """
    totals = _sum(companion, records, channels)
    percentiles = {channel: percentiles_of(counts) for channel, counts in zip(channels, totals, strict=True)}
    encodings = {
        channel: encoding_of(totals[number], _largest(records, number, totals[number]))
        for number, channel in enumerate(channels)
    }
    rows: list[dict[str, object]] = []
    planes: list[dict[str, object]] = []
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
            measures = record.quality[number]
            found = _plane(counts[number], measures, encodings[channel]) if record.is_valid[number] else None
            planes.append(plane_row(record.well, record.site, channel, measures, found))
    return PlateStatistics(percentiles, pl.DataFrame(rows, schema=_SCHEMA), quality_table(planes), encodings)


def _sum(companion: Place, records: Sequence[FieldRecord], channels: Sequence[str]) -> Counts:
    total = np.zeros((len(channels), 1), dtype=np.int64)
    for record in records:
        counts = _load(companion, record, channels)
        if counts.shape[1] > total.shape[1]:
            total = np.pad(total, ((0, 0), (0, counts.shape[1] - total.shape[1])))
        total[:, : counts.shape[1]] += counts * np.array(record.is_valid)[:, None]
    for channel, counts in zip(channels, total, strict=True):
        if not counts.any():
            found = f"channel {channel} has no valid plane in the whole plate"
            raise InputError(found, hint="leave the channel's files out, or repair some of them")
    return total


def _largest(records: Sequence[FieldRecord], number: int, counts: Counts) -> int:
    """Largest raw value of a channel; that of the histogram for planes that nobody measured."""
    measured = [record.quality[number].get("largest", 0) for record in records if record.is_valid[number]]
    return int(max(measured, default=0)) or int(np.flatnonzero(counts)[-1])


def _plane(counts: Counts, measures: Mapping[str, float], encoding: Encoding) -> dict[str, float]:
    """What follows from a plane's histogram, and from the plate's about the plane."""
    population = int(counts.sum())
    # Measured before the illumination was corrected; of planes that nobody measured, the histogram knows.
    largest = int(measures["largest"] if "largest" in measures else np.flatnonzero(counts)[-1])
    share = measures["share_at_largest"] if "share_at_largest" in measures else counts[largest] / population
    percentiles = percentiles_of(counts, (50, 99))
    return {
        "saturated_fraction": float(share) if largest >= encoding.ceiling else 0.0,
        "mean": float(np.einsum("i,i->", counts, np.arange(counts.size)) / population),
        "p50": percentiles["50"],
        "p99": percentiles["99"],
        "largest": largest,
    }


def _load(companion: Place, record: FieldRecord, channels: Sequence[str]) -> Counts:
    name = histogram_name(record.key)
    try:
        content = companion.read(name)
    except OSError as error:
        raise damaged(companion, name, error) from error
    if sha256_of(content) != record.histogram_sha256:
        found = f"{companion.location}/{name} differs from what was written"
        raise InputError(found, hint="run the same `cellvim ingest` again, it writes this field anew")
    return unpack_histograms(content, channels)
