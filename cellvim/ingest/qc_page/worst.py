"""The planes that a person should look at first."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from cellvim.ingest.qc_page.measures import BY_KEY
from cellvim.store.quality import BOUNDS, FLAGS, excesses, usual

MOST_SHOWN = 24


@dataclass(frozen=True)
class WorstPlane:
    """A plane and why it is shown.

    Attributes:
        measure: The measure by which it is here.
        flags: Everything that is suspicious about it; empty if it is only the most extreme of a good plate.
        reason: The measure's value beside the usual one.
    """

    well: str
    site: int
    channel: str
    measure: str
    flags: tuple[str, ...]
    reason: str


def worst_planes(quality: pl.DataFrame) -> list[WorstPlane]:
    """Choose at most 24 planes: of each measure the most suspicious, by turns; each plane once.

    A measure without a suspicious plane has no part in it, and a plate without any shows none.
    """
    queues = [list(_suspicious(quality, name)) for name in BOUNDS]
    chosen: list[WorstPlane] = []
    seen: set[tuple[str, int, str]] = set()
    for turn in range(max(map(len, queues))):
        for plane in (queue[turn] for queue in queues if turn < len(queue)):
            key = plane.well, plane.site, plane.channel
            if key not in seen:
                seen.add(key)
                chosen.append(plane)
    return sorted(chosen[:MOST_SHOWN], key=lambda plane: list(BOUNDS).index(plane.measure))


def _suspicious(quality: pl.DataFrame, name: str) -> Iterator[WorstPlane]:
    """Suspicious planes by one measure, worst first; equal ones in the order of the plate."""
    scores = np.zeros(quality.height)
    channels = quality["channel"].to_numpy()
    for channel in quality["channel"].unique():
        rows = np.flatnonzero(channels == channel)
        scores[rows] = excesses(quality[name].to_numpy()[rows].astype(np.float64), BOUNDS[name])
    flag_of = BOUNDS[name].low, BOUNDS[name].high
    for row in np.argsort(-np.abs(scores), kind="stable")[: 4 * MOST_SHOWN]:
        plane = quality.row(int(row), named=True)
        flags = tuple(plane[FLAGS])
        if abs(scores[row]) <= 1 or flag_of[int(scores[row] > 0)] not in flags:
            continue
        yield WorstPlane(
            well=plane["Metadata_Well"],
            site=plane["Metadata_Site"],
            channel=plane["channel"],
            measure=name,
            flags=flags,
            reason=_reason(quality, plane["channel"], name, plane[name]),
        )


def _reason(quality: pl.DataFrame, channel: str, name: str, value: float) -> str:
    measure = BY_KEY[name]
    middle = usual(quality, channel, name)
    beside = f", usual in {channel} {measure.shown(middle)}" if middle is not None else ""
    return f"{measure.name.lower()} {measure.shown(value)}{beside} ({measure.unit})"
