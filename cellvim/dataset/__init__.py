"""From plates on disk to the numbers a model sees: which fields, normalised how, cropped where."""

from cellvim.dataset.crops import Batch, CropSource
from cellvim.dataset.draws import Draws, EvenDraws, SampleKey
from cellvim.dataset.index import DrawnField, PlateGroup, TrainingIndex, Window
from cellvim.dataset.normalize import normalize_pixels
from cellvim.dataset.prefetch import Waiting, measured_waiting, prefetched, prefetched_in_parts

__all__ = [
    "Batch",
    "CropSource",
    "DrawnField",
    "Draws",
    "EvenDraws",
    "PlateGroup",
    "SampleKey",
    "TrainingIndex",
    "Waiting",
    "Window",
    "measured_waiting",
    "normalize_pixels",
    "prefetched",
    "prefetched_in_parts",
]
