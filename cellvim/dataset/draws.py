"""How the samples of a training step are chosen."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from cellvim.dataset.index import DrawnField, PlateGroup, TrainingIndex
from cellvim.store import PlateReader


@dataclass(frozen=True)
class SampleKey:
    """Which sample of which step: with the plates, all that a draw depends on."""

    seed: int
    step: int
    sample: int


@runtime_checkable
class Draws(Protocol):
    """A rule that says where each sample comes from."""

    @property
    def samples_together(self) -> int:
        """Successive samples that no slice of a step may separate: 2 if they are drawn in pairs, else 1."""
        ...

    @property
    def plates(self) -> tuple[PlateReader, ...]:
        """Plates that samples are drawn from."""
        ...

    def draw_group(self, generator: np.random.Generator) -> PlateGroup:
        """Choose the plates of a step.

        Args:
            generator: The step's own.
        """
        ...

    def draw_field(self, group: PlateGroup, key: SampleKey, generator: np.random.Generator) -> DrawnField:
        """Choose the field of a sample.

        Args:
            group: Plates of the step.
            key: For draws that several samples share, such as those of a pair.
            generator: The sample's own; place and augmentation of the crop are drawn from it afterwards.
        """
        ...


@dataclass(frozen=True)
class EvenDraws:
    """Evenly over plates, then over wells, then over fields; no labels."""

    index: TrainingIndex
    samples_together: int = 1

    @property
    def plates(self) -> tuple[PlateReader, ...]:
        return self.index.plates

    def draw_group(self, generator: np.random.Generator) -> PlateGroup:
        return self.index.draw_group(generator)

    def draw_field(self, group: PlateGroup, key: SampleKey, generator: np.random.Generator) -> DrawnField:
        del key
        return self.index.draw_field(group, generator)
