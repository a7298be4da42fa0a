"""Intervals: how much would a number change with other perturbations, plates or wells?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from cellvim.folds import hash_of

COVERAGE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; without one where there were fewer than two units to resample."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_resamples(cls, value: float, resamples: Float[ndarray, " resamples"]) -> "Estimate":
        tail = (1 - COVERAGE) / 2
        low, high = np.quantile(resamples, [tail, 1 - tail])
        return cls(float(value), float(low), float(high))

    def as_metric(self) -> float | dict[str, float]:
        """The form of metrics.json: ``{value, low, high}``, or the bare number."""
        if self.low is None or self.high is None:
            return self.value
        return {"value": self.value, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean_with_interval(
    values: Float64[ndarray, " units"], *, resamples: int, seed: int, name: str
) -> Estimate:
    """Mean over units, with a percentile bootstrap interval over units.

    Args:
        values: One value per unit.
        resamples: Number of resamples.
        seed: With `name` it decides the resamples.
        name: Name of the number, so that no two share their draws.
    """
    if values.size < 2:
        return Estimate(float(values.mean()))
    counts = resampled_counts(values.size, resamples=resamples, seed=seed, name=name)
    return Estimate.from_resamples(float(values.mean()), counts @ values / values.size)


def resampled_counts(
    units: int, *, resamples: int, seed: int, name: str
) -> Float64[ndarray, "resamples units"]:
    """How often each unit is drawn in each resample; every row sums to the number of units."""
    generator = generator_for(seed, name)
    return generator.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)


def generator_for(seed: int, *names: Any) -> np.random.Generator:
    """Generator that is a function of the seed and of what it is for, never of the order of calls."""
    return np.random.default_rng(hash_of("/".join(map(str, names)), salt=str(seed)))
