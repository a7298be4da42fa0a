"""Training crops. Each is a function of (seed, step, sample): a resumed run sees what it would have seen."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from cellvim.config import CropSettings
from cellvim.dataset.index import DrawnField, TrainingIndex
from cellvim.dataset.normalize import normalize_pixels

STREAM = 0x63726F70  # "crop": keeps these draws apart from those of the masks


@dataclass(frozen=True)
class Batch:
    """Crops of one training step."""

    images: Float[Tensor, "b c y x"]
    """Standardised pixels: mean 0 and deviation 1 over each crop's whole field."""
    channels: tuple[str, ...]
    step: int


class CropSource:
    """Cut the crops of any step.

    Args:
        index: Fields to draw from.
        settings: Size and augmentation.
        batch_size: Crops per step.
        seed: Changes every draw.
    """

    def __init__(self, index: TrainingIndex, settings: CropSettings, *, batch_size: int, seed: int) -> None:
        self.index = index
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, step: int) -> Batch:
        group = self.index.draw_group(np.random.default_rng((STREAM, self.seed, step)))
        crops = []
        for sample in range(self.batch_size):
            generator = np.random.default_rng((STREAM, self.seed, step, sample))
            crops.append(self._crop(self.index.draw_field(group, generator), generator))
        return Batch(torch.from_numpy(np.stack(crops)), group.channels, step)

    def _crop(self, drawn: DrawnField, generator: np.random.Generator) -> Float[ndarray, "c y x"]:
        plate, field, side = drawn.plate, drawn.field, self.settings.crop_px
        height, width = plate.shape(field)
        top, left = int(generator.integers(height - side + 1)), int(generator.integers(width - side + 1))
        raw = plate.read_crop(field, top, left, side, side)
        bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
        crop = normalize_pixels(raw, bounds, plate.intensity.moments(field))
        return np.ascontiguousarray(self._augment(crop, generator))

    def _augment(
        self, crop: Float[ndarray, "c y x"], generator: np.random.Generator
    ) -> Float[ndarray, "c y x"]:
        turns, is_mirrored = int(generator.integers(4)), bool(generator.integers(2))
        jitter = self.settings.gain_jitter
        gain = generator.uniform(1 - jitter, 1 + jitter, size=(crop.shape[0], 1, 1)).astype(np.float32)
        if self.settings.is_flipped:
            crop = np.rot90(crop, turns, axes=(1, 2))
            crop = crop[:, :, ::-1] if is_mirrored else crop
        return crop * gain
