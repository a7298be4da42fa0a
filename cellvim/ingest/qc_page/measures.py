"""What each measure is called, what it is measured in, and what good looks like."""

from dataclasses import dataclass

from cellvim.store.quality import BOUNDS


@dataclass(frozen=True)
class Measure:
    """A measure as people read it.

    Attributes:
        key: Column of the quality table.
        unit: Of the values shown.
        good: What a good plate looks like.
        factor: From the table's values to those shown.
        decimals: Of the values shown.
        least_range: A map spans at least this much, in shown values, so that trifles look like trifles.
        is_relative: `least_range` is a share of the largest value instead.
    """

    key: str
    name: str
    unit: str
    good: str
    factor: float = 1
    decimals: int = 2
    least_range: float = 0.1
    is_relative: bool = False

    def shown(self, value: float) -> str:
        """Spell a value of the table in the unit of the page."""
        text = f"{value * self.factor:,.{self.decimals}f}"
        return text.replace("-", "\N{MINUS SIGN}") if float(text.replace(",", "")) else text.lstrip("-")

    @property
    def is_judged(self) -> bool:
        return self.key in BOUNDS


MEASURES = (
    Measure(
        "focus_slope",
        "Focus",
        "log-log slope of the power spectrum",
        "Cells in focus have about \N{MINUS SIGN}1 to \N{MINUS SIGN}4, much alike within one channel. A plane far "
        "below the others is blurred; one near 0 shows noise and no structure.",
        least_range=1,
    ),
    Measure(
        "saturated_fraction",
        "Saturation",
        "% of pixels at the camera's ceiling",
        "0 is good. Above 1 % the brightest structures cannot be measured.",
        factor=100,
        decimals=3,
        least_range=1,
    ),
    Measure(
        "empty_fraction",
        "Blank blocks",
        "% of blocks of equal pixels",
        "0 is good. A camera's noise leaves no block of equal pixels; files that lost data have some, and so do "
        "8-bit images with a black background.",
        factor=100,
        decimals=2,
        least_range=1,
    ),
    Measure(
        "mean",
        "Mean",
        "grey values",
        "Should follow the treatments. Rows, columns or edges that differ are artefacts of dispensing, drying or "
        "drift.",
        decimals=0,
        least_range=0.1,
        is_relative=True,
    ),
    Measure(
        "p50",
        "Median",
        "grey values",
        "Mostly background. A gradient over the plate points at medium, washing or the lamp.",
        decimals=0,
        least_range=0.1,
        is_relative=True,
    ),
    Measure(
        "p99",
        "99th percentile",
        "grey values",
        "Mostly stained cells. A gradient over the plate points at staining or bleaching.",
        decimals=0,
        least_range=0.1,
        is_relative=True,
    ),
)
BY_KEY = {measure.key: measure for measure in MEASURES}
