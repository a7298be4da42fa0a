"""P-values of many runs, how far from uniform they are, and how sure that is. Runs are the unit."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from cellvim.statistics import resampled_counts

PAndQ = tuple[np.ndarray, np.ndarray]
LEVELS = np.arange(1, 1001) / 1000
SMALL = 0.05
"""No p-value above this one is ever called: q is never smaller than p."""
FALSE_CALLS = 0.05


@dataclass(frozen=True)
class Calibration:
    """P-values of one task on many screens of one design.

    Args:
        shares: Share of a run's groups with p at most each level; one row per run.
        calls: Share of a run's groups with q below 0.05.
        sizes: Groups of each run: a p-value weighs the same, whatever the design and the run.
    """

    shares: np.ndarray
    calls: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, values: list[PAndQ]) -> "Calibration":
        """Collect the p- and q-values of each run."""
        # A p-value that equals a level but for rounding is at it.
        shares = np.stack([(p[:, None] <= LEVELS + 1e-12).mean(axis=0) for p, _ in values])
        calls = np.array([(q < FALSE_CALLS).mean() for _, q in values])
        return cls(shares, calls, np.array([p.size for p, _ in values], np.float64))

    @classmethod
    def together(cls, parts: "Sequence[Calibration]") -> "Calibration":
        """Runs of several designs side by side."""
        shares, calls, sizes = (
            np.concatenate([getattr(one, name) for one in parts]) for name in ("shares", "calls", "sizes")
        )
        return cls(shares, calls, sizes)

    @property
    def groups(self) -> int:
        """Groups of a run, on average."""
        return round(self.sizes.mean())

    @property
    def size(self) -> int:
        """Number of p-values."""
        return int(self.sizes.sum())

    @property
    def share(self) -> np.ndarray:
        """Share of p-values at most each level, over all runs."""
        return np.asarray(np.average(self.shares, axis=0, weights=self.sizes))

    def at(self, level: float) -> float:
        return float(self.share[np.searchsorted(LEVELS, level - 1e-12)])

    def band(self, levels: np.ndarray, *, two_sided: bool = False) -> float:
        """How far the shares of other runs could lie from these, at any of the levels (95 %)."""
        counts = resampled_counts(len(self.shares), resamples=1000, seed=0, name="calibration")
        weights = counts * self.sizes
        shares = weights @ self.shares[:, levels] / weights.sum(axis=1, keepdims=True)
        away = self.share[levels] - shares
        away = np.abs(away) if two_sided else away
        return float(np.quantile(away.max(axis=1), 0.95))

    def excess(self, *, up_to: float = SMALL) -> float:
        """Largest P(p <= level) - level over levels up to a given one."""
        levels = up_to + 1e-12 >= LEVELS
        return float((self.share - LEVELS)[levels].max())

    def excess_limit(self, *, up_to: float = SMALL) -> float:
        """Upper 95 % limit of `excess`."""
        return self.excess(up_to=up_to) + self.band(up_to + 1e-12 >= LEVELS)

    def distance(self) -> float:
        """Largest distance from uniform at any level, either way."""
        return float(np.abs(self.share - LEVELS).max())

    def distance_limit(self) -> float:
        return self.distance() + self.band(LEVELS > 0, two_sided=True)

    @property
    def runs_with_calls(self) -> int:
        return int((self.calls > 0).sum())

    def calls_interval(self) -> tuple[float, float]:
        """Exact 95 % interval for the chance that a run calls anything: the false discovery rate, as all is null."""
        runs, found = len(self.calls), self.runs_with_calls
        low = float(beta.ppf(0.025, found, runs - found + 1)) if found else 0.0
        return low, float(beta.ppf(0.975, found + 1, runs - found)) if found < runs else 1.0
