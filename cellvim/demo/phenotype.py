"""What the demo's perturbations do to a cell: the truth that the report must find again.

Effect sizes were chosen on plates of the seeds 77 to 80: within reach of a trained encoder, the weakest ones out
of reach of an untrained one. The demo's own seed, 0, took no part in that.
"""

from dataclasses import asdict, dataclass, replace
from typing import Literal

Kind = Literal["control", "inert", "active", "toxic"]


@dataclass(frozen=True)
class Phenotype:
    """Average look of one cell population. Lengths in pixels, brightness relative to untreated cells."""

    cells_per_field: float = 24.0
    cell_radius_px: float = 27.0
    elongation: float = 1.3
    nucleus_radius_px: float = 9.5
    nucleus_brightness: float = 1.0
    chromatin_contrast: float = 0.16
    nucleolus_radius_px: float = 2.1
    nucleolus_brightness: float = 1.0
    er_brightness: float = 1.0
    er_grain_px: float = 1.4
    er_grain_contrast: float = 0.25
    er_spread: float = 0.62
    actin_fibers: float = 0.35
    actin_edge: float = 0.8
    golgi_brightness: float = 0.9
    mito_brightness: float = 1.3
    mito_fragmentation: float = 0.15
    mito_spread: float = 0.7


@dataclass(frozen=True)
class Perturbation:
    """One compound of the demo: its name, its mechanism, how strongly it acts, and the look it causes."""

    name: str
    kind: Kind
    mechanism: str
    strength: float
    phenotype: Phenotype

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


UNTREATED = Phenotype()

MECHANISMS: dict[str, dict[str, float]] = {
    "large nuclei": {"nucleus_radius_px": 1.28, "nucleus_brightness": 0.88, "chromatin_contrast": 2.0},
    "fragmented mitochondria": {"mito_fragmentation": 6.0, "mito_brightness": 1.15, "mito_spread": 0.65},
    "stress fibers": {"actin_fibers": 2.8, "actin_edge": 0.75, "elongation": 1.35, "golgi_brightness": 0.8},
    "granular ER": {"er_brightness": 1.25, "er_grain_px": 1.7, "er_grain_contrast": 2.1, "er_spread": 0.85},
}
"""Relative change of the untreated look at strength 1, by mechanism."""


def catalogue() -> tuple[Perturbation, ...]:
    """List every perturbation: the control first, then ten active ones, an inert and a toxic one."""
    return (
        Perturbation("DMSO", "control", "none", 0.0, UNTREATED),
        _active("nuc-1", "large nuclei", 1.0),
        _active("nuc-2", "large nuclei", 0.75, nucleolus_radius_px=1.35, nucleolus_brightness=1.2),
        _active("nuc-3", "large nuclei", 0.6, actin_edge=1.3),
        _active("mito-1", "fragmented mitochondria", 1.0),
        _active("mito-2", "fragmented mitochondria", 0.9, nucleus_radius_px=0.92, cells_per_field=0.85),
        _active("mito-3", "fragmented mitochondria", 0.75, golgi_brightness=1.5),
        _active("actin-1", "stress fibers", 1.0),
        _active("actin-2", "stress fibers", 0.65, cell_radius_px=1.12, cells_per_field=0.8),
        _active("er-1", "granular ER", 1.0),
        _active("er-2", "granular ER", 0.65, nucleolus_brightness=0.6),
        Perturbation("inert", "inert", "none", 0.0, UNTREATED),
        Perturbation("toxic", "toxic", "cell death", 1.0, _toxic()),
    )


def scaled(phenotype: Phenotype, factors: dict[str, float], strength: float = 1.0) -> Phenotype:
    """Multiply some features of a look by ``1 + strength * (factor - 1)``."""
    changed = {
        name: getattr(phenotype, name) * (1 + strength * (factor - 1)) for name, factor in factors.items()
    }
    return replace(phenotype, **changed)


def _active(name: str, mechanism: str, strength: float, **secondary: float) -> Perturbation:
    look = scaled(scaled(UNTREATED, MECHANISMS[mechanism], strength), secondary)
    return Perturbation(name, "active", mechanism, strength, look)


def _toxic() -> Phenotype:
    death = {
        "cells_per_field": 0.4,
        "cell_radius_px": 0.75,
        "elongation": 0.85,
        "nucleus_radius_px": 0.75,
        "nucleus_brightness": 1.5,
        "mito_brightness": 0.5,
        "mito_spread": 0.8,
    }
    return scaled(UNTREATED, death)
