"""Plates of the model study: synthetic ones to learn from and others to be judged on, and the real plate of BBBC013.

The synthetic ones are harder than the demo's: more compounds, weaker effects, fewer cells. How strong the effects
are was set on plates of the seeds 90 and 91, so that an untrained encoder is neither at chance nor near 1; the
study reports the seeds 0 to 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cellvim.config import IngestSettings
from cellvim.demo import Acquisition, write_layouts
from cellvim.demo.layout import PlateLayout
from cellvim.demo.phenotype import MECHANISMS, UNTREATED, Perturbation, Phenotype, scaled
from cellvim.ingest import ingest_plates
from pipelines.bbbc013 import PLATE

ROWS = "BCDEFG"
COLUMNS = range(1, 13)
CELLS_PER_FIELD = 18.0
EFFECT = 1.0
"""What all effects are multiplied by; see the head of this file."""
STRENGTHS = (1.0, 0.8, 0.65, 0.5)
"""Of the four compounds of a mechanism."""
LEARNED = (0, 2)
"""Which of them are on the plates that encoders learn from; the others appear on judged plates only."""
INERT = 2
"""Perturbations that do nothing, on the judged plates; one of them is on the plates learned from."""
LEARNED_REPLICATES, JUDGED_REPLICATES = 4, 2
"""Wells of each perturbation on a plate; all other wells are controls."""
STUDIED_MECHANISMS = {
    **MECHANISMS,
    "bright nucleoli": {"nucleolus_brightness": 1.5, "nucleolus_radius_px": 1.35, "chromatin_contrast": 0.7},
    "round cells": {"elongation": 0.8, "cell_radius_px": 0.9, "actin_edge": 1.4, "er_spread": 0.85},
}
SIDE_EFFECTS = (
    {"golgi_brightness": 1.5},
    {"nucleus_radius_px": 0.9, "er_brightness": 1.15},
    {"cells_per_field": 0.75},
    {"mito_brightness": 0.8, "actin_edge": 1.25},
)
"""One for each compound of a mechanism, which tells them apart."""


@dataclass(frozen=True)
class StudyPlates:
    """Plates of one data set. Those learned from and those judged are different ones where there are enough."""

    learned: tuple[Path, ...]
    judged: tuple[Path, ...]


@dataclass(frozen=True)
class SyntheticSize:
    """How many synthetic plates, and how much of each is imaged."""

    learned: int = 3
    judged: int = 3
    side_px: int = 192
    sites: int = 2
    effect: float = EFFECT

    @property
    def wells(self) -> int:
        """Wells of each plate."""
        return len(ROWS) * len(COLUMNS)

    @property
    def judged_controls(self) -> int:
        """Controls on each judged plate."""
        return self.wells - JUDGED_REPLICATES * (len(list_compounds(self.effect)) + INERT)

    @property
    def learned_names(self) -> tuple[str, ...]:
        return tuple(f"LEARN{number + 1}" for number in range(self.learned))

    @property
    def judged_names(self) -> tuple[str, ...]:
        return tuple(f"JUDGE{number + 1}" for number in range(self.judged))


def make_synthetic_plates(out: Path, size: SyntheticSize, *, seed: int) -> None:
    """Draw and ingest the plates of one seed; what is there already is kept."""
    compounds, novel = list_compounds(size.effect), novel_compounds()
    familiar = [compound for compound in compounds if compound.name not in novel]
    inert = [
        Perturbation(f"inert-{number + 1}", "inert", "none", 0.0, _untreated()) for number in range(INERT)
    ]
    generator = np.random.default_rng([seed, 1])
    layouts = tuple(
        [_layout(name, [*familiar, inert[0]], LEARNED_REPLICATES, generator) for name in size.learned_names]
        + [_layout(name, [*compounds, *inert], JUDGED_REPLICATES, generator) for name in size.judged_names]
    )
    every = [_control(), *compounds, *inert]
    written = write_layouts(out, layouts, every, Acquisition(size.side_px, size.sites), seed=seed)
    ingest_plates(
        IngestSettings(
            sources=tuple(written.images / layout.name for layout in layouts),
            out=out / "plates",
            platemap=written.platemap,
        )
    )


def synthetic_plates(out: Path, size: SyntheticSize) -> StudyPlates:
    """Say where `make_synthetic_plates` puts its plates."""
    return StudyPlates(
        learned=tuple(out / "plates" / f"{name}.ome.zarr" for name in size.learned_names),
        judged=tuple(out / "plates" / f"{name}.ome.zarr" for name in size.judged_names),
    )


def bbbc013_plates(out: Path) -> StudyPlates:
    """Plate 1049 is the only one with a public plate map: learned from, without labels, and judged on."""
    plate = out / "plates" / f"{PLATE}.ome.zarr"
    return StudyPlates((plate,), (plate,))


def list_compounds(effect: float) -> list[Perturbation]:
    """Four compounds of each of six mechanisms, strongest first."""
    return [
        Perturbation(
            f"{mechanism}-{number}",
            "active",
            mechanism,
            strength * effect,
            scaled(scaled(_untreated(), factors, strength * effect), side_effect, effect),
        )
        for mechanism, factors in STUDIED_MECHANISMS.items()
        for number, (strength, side_effect) in enumerate(zip(STRENGTHS, SIDE_EFFECTS, strict=True), start=1)
    ]


def novel_compounds() -> frozenset[str]:
    """Compounds that are on the judged plates only."""
    numbers = {number + 1 for number in range(len(STRENGTHS)) if number not in LEARNED}
    return frozenset(f"{mechanism}-{number}" for mechanism in STUDIED_MECHANISMS for number in numbers)


def _layout(
    name: str, treatments: Sequence[Perturbation], replicates: int, generator: np.random.Generator
) -> PlateLayout:
    """Every treatment in some wells at random, controls in all others."""
    wells = [f"{row}{column:02d}" for row in ROWS for column in COLUMNS]
    contents = [treatment for treatment in treatments for _ in range(replicates)]
    contents += [_control()] * (len(wells) - len(contents))
    order = generator.permutation(len(wells))
    return PlateLayout(name, {wells[k]: contents[at] for k, at in enumerate(order)}, missing=None)


def _control() -> Perturbation:
    return Perturbation("DMSO", "control", "none", 0.0, _untreated())


def _untreated() -> Phenotype:
    return replace(UNTREATED, cells_per_field=CELLS_PER_FIELD)
