"""Samples that come with a label: the trained side of the splits, and nothing else."""

import numpy as np

from cellvim.dataset.draws import SampleKey
from cellvim.dataset.index import DrawnField, PlateGroup, TrainingIndex, Window
from cellvim.dataset.splits import Division
from cellvim.store import FieldKey, PlateReader


class LabelledDraws:
    """Evenly over plates, then over wells, then over fields, of the wells and windows that may be learned from.

    Classes are met as often as they have wells: the chance level says how unequal they are.

    Args:
        index: All plates of the run.
        division: Which of them may be learned from.
    """

    samples_together = 1

    def __init__(self, index: TrainingIndex, division: Division) -> None:
        self.division = division
        self._label_and_window: dict[tuple[PlateReader, FieldKey], tuple[int, Window]] = {
            (well.plate, part.field): (division.classes.index(well.label), part.window)
            for well in division.training
            for part in well.parts
        }
        self._trained = index.only(self._label_and_window)

    @property
    def plates(self) -> tuple[PlateReader, ...]:
        return tuple(plate for plate, _ in self._trained.plates_and_wells())

    def draw_group(self, generator: np.random.Generator) -> PlateGroup:
        return self._trained.draw_group(generator)

    def draw_field(self, group: PlateGroup, key: SampleKey, generator: np.random.Generator) -> DrawnField:
        del key
        drawn = self._trained.draw_field(group, generator)
        label, window = self._label_and_window[drawn.plate, drawn.field]
        return DrawnField(drawn.plate, drawn.field, label=label, window=window)
