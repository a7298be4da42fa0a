"""Numbers with their intervals, the same for every stage that judges something."""

from cellvim.statistics.agreement import score_predictions
from cellvim.statistics.bootstrap import (
    Estimate,
    generator_for,
    mean_with_interval,
    resampled_counts,
)

__all__ = ["Estimate", "generator_for", "mean_with_interval", "resampled_counts", "score_predictions"]
