"""Heat maps of a plate: one for each channel and measure, one square for each well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from cellvim.ingest.qc_page.measures import MEASURES, Measure
from cellvim.store.naming import row_name, well_position
from cellvim.store.quality import BOUNDS, FLAGS

# Viridis in twelve steps: light enough on dark, dark enough on light, and told apart by everybody.
COLOURS = (
    *("#471365", "#472f7d", "#3f4889", "#34608d", "#2b748e", "#23888e"),
    *("#1e9d89", "#2ab07f", "#4ec36b", "#7cd250", "#b2dd2d", "#ece51b"),
)

# Rows and columns of the plates that are made.
_FORMATS = ((2, 3), (4, 6), (8, 12), (16, 24), (32, 48))
PITCH, MARGIN = 10, 12
# What single wells do beyond these percentiles does not change the colours of all the others.
_ROBUST = (0.02, 0.98)


@dataclass(frozen=True)
class Cell:
    """One well of a map.

    Attributes:
        kind: ``v0`` to ``v11`` by value, or ``hatched`` if nothing in the well can be measured.
        title: What a pointer that rests on it is told.
    """

    x: int
    y: int
    kind: str
    title: str
    is_flagged: bool = False


@dataclass(frozen=True)
class PlateMap:
    """One map.

    Attributes:
        low: Value of the first colour, spelled out.
        high: Value of the last colour.
        usual: Median over wells.
        flagged: Wells that hold a suspicious plane.
    """

    measure: Measure
    channel: str
    rows: int
    columns: int
    cells: tuple[Cell, ...]
    low: str
    high: str
    usual: str
    flagged: tuple[str, ...]

    @cached_property
    def label(self) -> str:
        """The map in words, for those who do not see it."""
        spread = f"colours from {self.low} to {self.high}, median of wells {self.usual}"
        named = ", ".join(self.flagged[:12]) + (" and more" if len(self.flagged) > 12 else "")
        marked = f"; suspicious planes in {named}" if self.flagged else ""
        return f"{self.measure.name} of {self.channel} over the plate: {spread}{marked}"

    @property
    def width(self) -> int:
        return MARGIN + self.columns * PITCH + 1

    @property
    def height(self) -> int:
        return MARGIN + self.rows * PITCH + 1

    @property
    def label_step(self) -> int:
        """Every how many rows and columns there is room for a name."""
        return 1 if self.columns <= 24 else 4

    @property
    def row_names(self) -> list[tuple[int, str]]:
        return [(MARGIN + PITCH * row + 7, row_name(row + 1)) for row in range(0, self.rows, self.label_step)]

    @property
    def column_names(self) -> list[tuple[int, int]]:
        step = self.label_step
        return [(MARGIN + PITCH * column + 5, column + 1) for column in range(0, self.columns, step)]


def plate_maps(
    quality: pl.DataFrame, channels: Sequence[str], skipped_wells: Mapping[str, str]
) -> dict[str, list[PlateMap]]:
    """Lay out all maps: channel to its maps, without measures that no plane of the channel has.

    Args:
        quality: Table of planes, see `cellvim.store.quality.SCHEMA`.
        channels: Stains, in order.
        skipped_wells: Well that the plate lacks as a whole, to the reason.
    """
    wells = quality["Metadata_Well"].unique(maintain_order=True).to_list()
    rows, columns = _plate_size([*wells, *skipped_wells])
    maps: dict[str, list[PlateMap]] = {}
    for channel in channels:
        planes = quality.filter(channel=channel)
        known = [measure for measure in MEASURES if planes[measure.key].is_not_null().any()]
        layout = rows, columns
        maps[channel] = [_plate_map(planes, measure, layout, skipped_wells) for measure in known]
    return maps


def _plate_size(wells: Sequence[str]) -> tuple[int, int]:
    """The smallest plate that is made and has all these wells."""
    places = [well_position(well) for well in wells]
    lowest, furthest = (max(place[axis] for place in places) for axis in range(2))
    fitting = (size for size in _FORMATS if size[0] >= lowest and size[1] >= furthest)
    return next(fitting, _FORMATS[-1])


def _plate_map(
    planes: pl.DataFrame, measure: Measure, size: tuple[int, int], skipped_wells: Mapping[str, str]
) -> PlateMap:
    bound = BOUNDS.get(measure.key)
    flags = [flag for flag in (bound.low, bound.high) if flag] if bound else []
    wells = planes.group_by("Metadata_Well", maintain_order=True).agg(
        pl.col(measure.key).mean().alias("value"),
        (~pl.col("is_valid")).sum().alias("filled"),
        pl.len().alias("fields"),
        pl.col(FLAGS).list.set_intersection(flags).list.len().sum().alias("flagged"),
    )
    values = wells["value"].drop_nulls().to_numpy().astype(np.float64)
    low, high = _colour_range(values, measure)
    cells = [_cell(row, measure, low, high) for row in wells.iter_rows(named=True)]
    cells += [_hatched(well, f"{well} is skipped: {reason}") for well, reason in skipped_wells.items()]
    return PlateMap(
        measure=measure,
        channel=str(planes["channel"][0]),
        rows=size[0],
        columns=size[1],
        cells=tuple(cells),
        low=measure.shown(low),
        high=measure.shown(high),
        usual=measure.shown(float(np.median(values))),
        flagged=tuple(wells.filter(pl.col("flagged") > 0)["Metadata_Well"]),
    )


def _colour_range(values: np.ndarray, measure: Measure) -> tuple[float, float]:
    low, high = (float(np.quantile(values, share)) for share in _ROBUST)
    least = measure.least_range * (abs(high) if measure.is_relative else 1 / measure.factor)
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
        if values.min() >= 0 > low:
            low, high = 0.0, max(least, high)
    return low, high


def _cell(row: Mapping[str, object], measure: Measure, low: float, high: float) -> Cell:
    well, value, filled, fields = str(row["Metadata_Well"]), row["value"], row["filled"], row["fields"]
    part = f"{filled} of {fields} fields filled" if filled else ""
    if not isinstance(value, float):
        return _hatched(well, f"{well}: {part or 'cannot be measured'}")
    share = (value - low) / (high - low) if high > low else 0.5
    step = min(max(int(share * len(COLOURS)), 0), len(COLOURS) - 1)
    flagged = int(str(row["flagged"]))
    suspicious = f"{flagged} suspicious" if flagged else ""
    title = "; ".join(part for part in (f"{well}: {measure.shown(value)}", suspicious, part) if part)
    x, y = _place(well)
    return Cell(x, y, f"v{step}", title, is_flagged=flagged > 0)


def _hatched(well: str, title: str) -> Cell:
    return Cell(*_place(well), "hatched", title)


def _place(well: str) -> tuple[int, int]:
    row, column = well_position(well)
    return MARGIN + PITCH * (column - 1), MARGIN + PITCH * (row - 1)
