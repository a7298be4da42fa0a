"""Numbers as people read them."""

import math
from collections.abc import Mapping
from typing import Any

from cellvim.statistics import Estimate

NOTHING = "\N{EN DASH}"


def estimate_of(metric: Any) -> Estimate | None:
    """Read a metric of metrics.json: a number, or `{value, low, high}`; None where there is none."""
    if not isinstance(metric, Mapping):
        metric = {"value": metric}
    value, low, high = (finite(metric.get(key)) for key in ("value", "low", "high"))
    return None if value is None else Estimate(value, low, high)


def interval(estimate: Estimate) -> str:
    """``0.77 to 0.89``, or nothing where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def with_interval(estimate: Estimate) -> str:
    between = interval(estimate)
    return f"{estimate.value:.2f} (95 % interval {between})" if between else f"{estimate.value:.2f}"


def finite(value: Any) -> float | None:
    """Return a number that can be shown, or None for what is missing, not a number or infinite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def rounded(value: Any, digits: int = 4) -> float | None:
    """Keep `digits` significant digits: more than a screen shows, fewer than a page can carry."""
    number = finite(value)
    return None if number is None else float(f"{number:.{digits}g}")


def score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def probability(value: float | None) -> str:
    """Write a p or q value: three decimals, or two digits and a power of ten when it is smaller than that."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}".replace("e-0", "e-")


def counted(number: int, noun: str) -> str:
    """Return ``1 plate``, ``3 plates``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str], *, most: int = 3) -> str:
    """Return ``a, b and c``, or ``a, b, c and 4 more``."""
    shown = names[:most]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def spelled(key: str) -> str:
    """Turn a key of a file into words: ``plate_held_out`` into ``plate held out``."""
    return key.replace("_", " ").strip()
