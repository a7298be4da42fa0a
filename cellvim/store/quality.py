"""The table of every plane's quality, and which planes are suspicious beside the rest of their channel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

QUALITY_FILE = "quality.parquet"
PAGE_FILE = "qc.html"
FLAGS = "flags"
Z_CHOSEN = "z_chosen"

SCHEMA: dict[str, Any] = {
    "Metadata_Well": pl.String,
    "Metadata_Site": pl.Int64,
    "channel": pl.String,
    "is_valid": pl.Boolean,
    "focus_slope": pl.Float64,
    "saturated_fraction": pl.Float64,
    "empty_fraction": pl.Float64,
    "mean": pl.Float64,
    "p50": pl.Float64,
    "p99": pl.Float64,
    "largest": pl.Int64,
    Z_CHOSEN: pl.Int64,
    FLAGS: pl.List(pl.String),
}
"""Columns of the table. All measures are null for a filled plane, and one that is undefined is null, too."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """From where on a measure makes a plane suspicious.

    A plane is judged by its distance from the median of its channel, in units of the channel's spread: 1.4826 times
    the median absolute deviation, as robust as the standard deviation is not.

    Attributes:
        low: Flag of a plane that lies too low; None if low is fine.
        high: Flag of a plane that lies too high; None if high is fine.
        spreads: How many spreads from the median is too far.
        least_spread: Spread of a channel that hardly varies; keeps trifles from being flagged.
        is_tailed: The measure is 0 for most planes. The spread is then also at least what the 90th percentile shows.
        is_ratio: Distances are those of the logarithm to base 2: twice as bright is as far as half.
        ceiling: Above it, a plane is suspicious whatever the others are like.
    """

    low: str | None
    high: str | None
    spreads: float
    least_spread: float
    is_tailed: bool = False
    is_ratio: bool = False
    ceiling: float | None = None


BOUNDS: Mapping[str, Bound] = {
    "focus_slope": Bound("blurred", "without structure", spreads=5, least_spread=0.12),
    "saturated_fraction": Bound(None, "saturated", 5, 0.0005, is_tailed=True, ceiling=0.01),
    "empty_fraction": Bound(None, "partly blank", 5, 0.001, is_tailed=True, ceiling=0.5),
    "mean": Bound("dark", "bright", spreads=6, least_spread=0.1, is_ratio=True),
}
# A median of fewer planes says little about what is usual.
FEWEST_PLANES = 8

# What the values of cameras are limited to: 8, 10, 12, 14 and 16 bits.
_FULL = tuple(2**bits - 1 for bits in (8, 10, 12, 14, 16))
# 8 bits stretched to 16; 14, 12 and 10 bits moved to the upper end of 16.
_STEPS = {257: "8-bit values stored times 257", 64: "10-bit", 16: "12-bit", 4: "14-bit"}
_FEWEST_VALUES = 16


@dataclass(frozen=True)
class Encoding:
    """How the camera's values lie in a channel's data type.

    Attributes:
        ceiling: Value of a saturated pixel.
        note: What is odd about it; None if nothing is.
    """

    ceiling: int
    note: str | None = None


def encoding_of(counts: NDArray[np.integer], largest: int) -> Encoding:
    """Tell from a channel's histogram how many bits its camera has.

    Args:
        counts: Of all valid pixels of the channel in the plate.
        largest: Largest raw value. Beyond the histogram where an illumination correction lowered it.
    """
    present = np.flatnonzero(counts)
    present = present[present > 0]
    step = int(np.gcd.reduce(present)) if present.size >= _FEWEST_VALUES else 1
    step = next((known for known in _STEPS if step % known == 0), 1)
    ceiling = step * next((full for full in _FULL if largest <= full * step), _FULL[-1])
    if step == 1:
        return Encoding(ceiling)
    if step == 257:
        return Encoding(ceiling, _STEPS[step])
    return Encoding(
        ceiling, f"all values are multiples of {step}, as of a {_STEPS[step]} camera moved to 16 bits"
    )


def judge(planes: pl.DataFrame) -> pl.DataFrame:
    """Say of every plane what is suspicious about it.

    Args:
        planes: Columns of `SCHEMA` except the flags.

    Returns:
        The table with its flags, an empty list for a plane that is like the others.
    """
    flags: list[list[str]] = [[] for _ in range(planes.height)]
    channels = planes["channel"].to_numpy()
    for name, bound in BOUNDS.items():
        values = planes[name].to_numpy().astype(np.float64)
        for channel in planes["channel"].unique(maintain_order=True):
            rows = np.flatnonzero(channels == channel)
            for row, excess in zip(rows, excesses(values[rows], bound), strict=True):
                flag = bound.high if excess > 0 else bound.low
                if abs(excess) > 1 and flag:
                    flags[row].append(flag)
    return planes.with_columns(pl.Series(FLAGS, flags, dtype=pl.List(pl.String)))


def excesses(values: Values, bound: Bound) -> Values:
    """How far planes of one channel lie from the usual, negative if below; beyond 1 or -1 a plane is suspicious.

    Args:
        values: NaN for planes that do not count; they have an excess of 0.
        bound: Of the measure.
    """
    is_known = np.isfinite(values)
    known = values[is_known]
    excess = np.zeros(values.size)
    if bound.ceiling is not None:
        excess[is_known] = np.where(known > bound.ceiling, np.maximum(known / bound.ceiling, 1 + 1e-9), 0.0)
    if known.size < FEWEST_PLANES:
        return excess
    scaled = np.log2(known + 1) if bound.is_ratio else known
    middle = np.median(scaled)
    spread = max(1.4826 * float(np.median(np.abs(scaled - middle))), bound.least_spread)
    if bound.is_tailed:
        spread = max(spread, float(np.quantile(scaled, 0.9, method="lower") - middle) / 1.2816)
    relative = (scaled - middle) / (spread * bound.spreads)
    excess[is_known] = np.where(np.abs(relative) > np.abs(excess[is_known]), relative, excess[is_known])
    return excess


def usual(planes: pl.DataFrame, channel: str, measure: str) -> float | None:
    """Median of a measure over the valid planes of a channel; None if there is none."""
    median = planes.filter(channel=channel)[measure].median()
    return float(median) if isinstance(median, int | float) else None


def plane_row(
    well: str, site: int, channel: str, measures: Mapping[str, float], statistics: Mapping[str, float] | None
) -> dict[str, Any]:
    """One row of the table, without flags.

    Args:
        well: For example ``B03``.
        site: Number of the field.
        channel: Stain.
        measures: From the done-record; see `cellvim.ingest.quality.measure_plane`.
        statistics: From the histogram; None if the plane was filled.
    """
    row: dict[str, Any] = {
        "Metadata_Well": well,
        "Metadata_Site": site,
        "channel": channel,
        "is_valid": statistics is not None,
    }
    if statistics is None:
        return row
    known = {name: value for name, value in {**measures, **statistics}.items() if name in SCHEMA}
    return row | {name: int(value) if SCHEMA[name] == pl.Int64 else value for name, value in known.items()}


def quality_table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    schema = {name: kind for name, kind in SCHEMA.items() if name != FLAGS}
    return judge(pl.DataFrame(rows, schema=schema))
