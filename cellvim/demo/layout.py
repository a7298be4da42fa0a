"""Decide what is in each well of each synthetic plate, and write it down as a plate map."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellvim.demo.phenotype import Perturbation, catalogue

ROWS = "BCDEF"
COLUMNS = range(2, 10)
REPLICATES = 2
"""Wells of each perturbation on each plate; all other wells are controls."""


@dataclass(frozen=True)
class PlateLayout:
    """One plate: what was put into each well, and which well was never imaged."""

    name: str
    wells: dict[str, Perturbation]
    """From well name, in plate order, to what is in it."""
    missing: str | None
    """A control well that the plate map names and the microscope skipped."""

    @property
    def imaged(self) -> tuple[str, ...]:
        return tuple(well for well in self.wells if well != self.missing)


def draw_layouts(plates: int, *, seed: int) -> tuple[PlateLayout, ...]:
    """Shuffle every plate anew, until no perturbation sits in the same well on all plates.

    One control well of the last plate is missing.
    """
    names = [f"DEMO{number:02d}" for number in range(1, plates + 1)]
    wells = [f"{row}{column:02d}" for row in ROWS for column in COLUMNS]
    generator = np.random.default_rng([seed, 1])
    contents = _contents(len(wells))
    layouts: list[dict[str, Perturbation]] = []
    while not layouts or _has_fixed_position(layouts):
        orders = [generator.permutation(len(wells)) for _ in names]
        layouts = [dict(zip(wells, (contents[k] for k in order), strict=True)) for order in orders]
    controls = [well for well, content in layouts[-1].items() if content.kind == "control"]
    missing = controls[int(generator.integers(len(controls)))]
    return tuple(
        PlateLayout(name, layout, missing if name == names[-1] else None)
        for name, layout in zip(names, layouts, strict=True)
    )


def platemap_csv(layouts: Sequence[PlateLayout]) -> str:
    """Write the plate maps of all plates as one CSV, the missing well included."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "Metadata_Plate",
            "Metadata_Well",
            "Metadata_Perturbation",
            "Metadata_ControlType",
            "Metadata_Mechanism",
            "Metadata_Strength",
        ]
    )
    for layout in layouts:
        for well, content in layout.wells.items():
            control = "negcon" if content.kind == "control" else ""
            writer.writerow(
                [layout.name, well, content.name, control, content.mechanism, f"{content.strength:g}"]
            )
    return text.getvalue()


def _contents(wells: int) -> list[Perturbation]:
    control, *treatments = catalogue()
    treated = [treatment for treatment in treatments for _ in range(REPLICATES)]
    return treated + [control] * (wells - len(treated))


def _has_fixed_position(layouts: Sequence[dict[str, Perturbation]]) -> bool:
    first, *others = layouts
    return any(
        content.kind != "control" and all(other[well].name == content.name for other in others)
        for well, content in first.items()
    )
