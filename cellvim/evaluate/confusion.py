"""Which labels are taken for which? Counts, and shares of each label's wells with intervals over held-out units."""

import numpy as np
import polars as pl
from jaxtyping import Float64, Int
from numpy import ndarray
from scipy.sparse import csr_array

from cellvim.statistics import resampled_counts
from cellvim.statistics.bootstrap import COVERAGE

BLOCK_PAIRS = 4096
COLUMNS = {"label": pl.Int64, "predicted": pl.Int64, "count": pl.Int64, "share": pl.Float64}
COLUMNS |= {"low": pl.Float64, "high": pl.Float64}


def confusion_table(
    label: Int[ndarray, " wells"],
    predicted: Int[ndarray, " wells"],
    unit: Int[ndarray, " wells"],
    *,
    resamples: int,
    seed: int,
    name: str,
) -> pl.DataFrame:
    """Count each pair of true and predicted label that occurs.

    Args:
        label: True label of each well, from 0.
        predicted: Predicted label.
        unit: What was held out together, from 0; resampled together.
        resamples: Number of resamples.
        seed: With `name` it decides the resamples.
        name: Name of what is counted.

    Returns:
        `label, predicted, count, share, low, high`, sorted; `share` is of the label's wells. Without an interval where
        there is one unit. Resamples without any well of a label do not count for it.
    """
    size = int(max(label.max(initial=0), predicted.max(initial=0))) + 1
    pairs, code, counts = np.unique(label * size + predicted, return_inverse=True, return_counts=True)
    truth = pairs // size
    totals = np.bincount(label, minlength=size)[truth]
    low, high = np.full(pairs.size, np.nan), np.full(pairs.size, np.nan)
    units = int(unit.max(initial=0)) + 1
    if units > 1:
        drawn = resampled_counts(units, resamples=resamples, seed=seed, name=name)
        low, high = share_intervals(drawn, unit, label, code, truth)
    columns = (truth, pairs % size, counts, counts / np.maximum(totals, 1), low, high)
    return pl.DataFrame(dict(zip(COLUMNS, columns, strict=True)), schema=COLUMNS).with_columns(
        pl.col("low", "high").fill_nan(None)
    )


def share_intervals(
    drawn: Float64[ndarray, "resamples units"],
    unit: Int[ndarray, " wells"],
    label: Int[ndarray, " wells"],
    pair: Int[ndarray, " wells"],
    truth: Int[ndarray, " pairs"],
) -> tuple[Float64[ndarray, " pairs"], Float64[ndarray, " pairs"]]:
    """Ends of the interval of each pair's share, a block of pairs at a time."""
    hits = tally(unit, pair, drawn.shape[1], truth.size)
    wells = drawn @ tally(unit, label, drawn.shape[1], int(label.max()) + 1)
    tail = (1 - COVERAGE) / 2
    ends = np.empty((2, truth.size))
    for start in range(0, truth.size, BLOCK_PAIRS):
        at = slice(start, start + BLOCK_PAIRS)
        below = wells[:, truth[at]]
        shares = np.where(below > 0, (drawn @ hits[:, at]) / np.maximum(below, 1), np.nan)
        is_whole = ~np.isnan(shares).any(axis=0)
        found = np.empty((2, shares.shape[1]))
        found[:, is_whole] = np.quantile(shares[:, is_whole], [tail, 1 - tail], axis=0)
        found[:, ~is_whole] = np.nanquantile(shares[:, ~is_whole], [tail, 1 - tail], axis=0)
        ends[:, at] = found
    return ends[0], ends[1]


def tally(unit: Int[ndarray, " wells"], code: Int[ndarray, " wells"], units: int, codes: int) -> csr_array:
    """Count wells by unit and code."""
    return csr_array((np.ones(unit.size), (unit, code)), shape=(units, codes))
