"""Numbers with their intervals, the same for every stage that judges something.

`cellvim.statistics.permutation` is imported on its own: it needs scipy, which takes its time to load.
"""

from cellvim.statistics.agreement import score_predictions
from cellvim.statistics.assay import z_prime
from cellvim.statistics.bootstrap import (
    Estimate,
    generator_for,
    mean_with_interval,
    resampled_counts,
)

__all__ = [
    "Estimate",
    "generator_for",
    "mean_with_interval",
    "resampled_counts",
    "score_predictions",
    "z_prime",
]
