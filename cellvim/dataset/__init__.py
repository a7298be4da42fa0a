"""From plates on disk to the numbers a model sees: which fields, normalised how, cropped where."""

from cellvim.dataset.crops import Batch, CropSource
from cellvim.dataset.index import TrainingIndex
from cellvim.dataset.normalize import normalize_pixels
from cellvim.dataset.prefetch import prefetched

__all__ = ["Batch", "CropSource", "TrainingIndex", "normalize_pixels", "prefetched"]
