"""Samples that come in pairs: two views of the same biology."""

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cellvim.dataset.draws import SampleKey
from cellvim.dataset.index import DrawnField, PlateGroup, TrainingIndex
from cellvim.dataset.labels import (
    CONTROL_TYPE,
    PERTURBATION,
    find_column,
    require_column,
    values_by_well,
)
from cellvim.errors import InputError
from cellvim.store import FieldKey, PlateReader

logger = logging.getLogger(__name__)

STREAM = 0x70616972  # "pair": keeps these draws apart from those of crops

Kind = Literal["replicate", "field", "crop"]
UNTREATED = ("negcon", "empty")


@dataclass(frozen=True)
class PairWell:
    """A well as one side of a pair.

    Args:
        identity: Number of what it shows; wells of one number are never negatives of each other.
    """

    plate: PlateReader
    fields: tuple[FieldKey, ...]
    identity: int


class PairedDraws:
    """Samples 2i and 2i + 1 are a well drawn evenly and its partner; their label says what they show.

    The partner is a replicate of the perturbation on another plate with the same channels. Untreated wells,
    wells without a perturbation and perturbations of one plate have none: their partner is another field of
    the same well or, where it has only one, another crop of it.

    Args:
        index: Plates of the run.
        positives: `well` takes no labels: every partner is of the same well.

    Raises:
        InputError: Replicates are asked for, and the plates have no plate map, or no well has one.
    """

    samples_together = 2

    def __init__(self, index: TrainingIndex, *, positives: Literal["replicate", "well"]) -> None:
        self._index = index
        perturbations = _perturbations(index) if positives == "replicate" else {}
        codes = {name: code for code, name in enumerate(sorted({name for name, _ in perturbations.values()}))}
        self._wells: dict[tuple[PlateReader, str], PairWell] = {}
        self._replicates: dict[tuple[tuple[str, ...], int], list[PairWell]] = defaultdict(list)
        for plate, wells in index.plates_and_wells():
            for fields in wells:
                place = (plate, fields[0].well)
                name, is_treated = perturbations.get(place, (None, False))
                identity = len(codes) + len(self._wells) if name is None else codes[name]
                self._wells[place] = well = PairWell(plate, fields, identity)
                if is_treated:
                    self._replicates[plate.channels, identity].append(well)
        if positives == "replicate" and not self.count_kinds()["replicate"]:
            found = "no perturbation is on two plates with the same channels, so no well has a replicate elsewhere"
            hint = "give more plates, or set alignment.positives to well, which takes no labels"
            raise InputError(found, hint=hint)

    def count_kinds(self) -> dict[Kind, int]:
        """How many wells have a partner of each kind."""
        counts = Counter(self._kind(well) for well in self._wells.values())
        return {kind: counts[kind] for kind in ("replicate", "field", "crop")}

    @property
    def plates(self) -> tuple[PlateReader, ...]:
        return self._index.plates

    def draw_group(self, generator: np.random.Generator) -> PlateGroup:
        return self._index.draw_group(generator)

    def draw_field(self, group: PlateGroup, key: SampleKey, generator: np.random.Generator) -> DrawnField:
        del generator  # both samples of a pair must know the same two fields
        shared = np.random.default_rng((STREAM, key.seed, key.step, key.sample // 2))
        drawn = self._index.draw_field(group, shared)
        well = self._wells[drawn.plate, drawn.field.well]
        if key.sample % 2:
            drawn = self._draw_partner(well, drawn, shared)
        return replace(drawn, label=well.identity)

    def _draw_partner(self, well: PairWell, drawn: DrawnField, generator: np.random.Generator) -> DrawnField:
        kind = self._kind(well)
        if kind == "crop":
            return drawn
        if kind == "field":
            others = [field for field in well.fields if field != drawn.field]
            return DrawnField(well.plate, others[int(generator.integers(len(others)))])
        partners = self._on_other_plates(well)
        partner = partners[int(generator.integers(len(partners)))]
        return DrawnField(partner.plate, partner.fields[int(generator.integers(len(partner.fields)))])

    def _kind(self, well: PairWell) -> Kind:
        if self._on_other_plates(well):
            return "replicate"
        return "field" if len(well.fields) > 1 else "crop"

    def _on_other_plates(self, well: PairWell) -> list[PairWell]:
        alike = self._replicates.get((well.plate.channels, well.identity), [])
        return [other for other in alike if other.plate is not well.plate] if well in alike else []


def _perturbations(index: TrainingIndex) -> dict[tuple[PlateReader, str], tuple[str, bool]]:
    """Perturbation of each well that has one, and whether it is a treatment."""
    column = require_column(index.plates, PERTURBATION, asked_by="alignment.positives: replicate")
    found = {}
    if find_column(index.plates, CONTROL_TYPE) is None:
        logger.warning(
            "no plate map has %s: untreated wells are drawn towards each other like any treatment",
            CONTROL_TYPE,
        )
    for plate in index.plates:
        controls = values_by_well(plate, CONTROL_TYPE)
        for well, name in values_by_well(plate, column).items():
            found[plate, well] = (name, controls.get(well) not in UNTREATED)
    return found
