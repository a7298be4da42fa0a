"""Training crops. Each is a function of (seed, step, sample): a resumed run sees what it would have seen."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from cellvim.config import CropSettings
from cellvim.dataset.draws import Draws, EvenDraws, SampleKey
from cellvim.dataset.index import DrawnField, PlateGroup, TrainingIndex, Window
from cellvim.dataset.normalize import normalize_pixels
from cellvim.store import FieldKey, PlateReader

STREAM = 0x63726F70  # "crop": keeps these draws apart from those of the masks


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops of one training step, or of a slice of it: samples `first` to `first + b` of the step's `size`."""

    images: Float[Tensor, "b c y x"]
    """Standardised pixels: mean 0 and deviation 1 over each crop's whole field."""
    channels: tuple[str, ...]
    step: int
    first: int
    size: int
    labels: Int[Tensor, " b"] | None = None
    """Class of each sample, where the draw gives labels."""

    def to(self, device: torch.device) -> "Batch":
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, images=self.images.to(device), labels=labels)


def read_normalized(plate: PlateReader, field: FieldKey, window: Window) -> Float[ndarray, "c y x"]:
    """Read part of a field as a model sees it."""
    raw = plate.read_crop(field, window.top, window.left, window.height, window.width)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    return normalize_pixels(raw, bounds, plate.intensity.moments(field))


class CropSource:
    """Cut the crops of any step.

    Args:
        index: Plates to draw from.
        settings: Size and augmentation.
        batch_size: Crops per step.
        seed: Changes every draw.
        draws: How samples are chosen; evenly, without labels, if absent.
    """

    def __init__(
        self,
        index: TrainingIndex,
        settings: CropSettings,
        *,
        batch_size: int,
        seed: int,
        draws: Draws | None = None,
    ) -> None:
        self.index = index
        self.settings = settings
        self.batch_size = batch_size
        self.seed = seed
        self.draws = draws or EvenDraws(index)

    def batch(self, step: int, samples: range | None = None) -> Batch:
        """Cut the crops of a step, or of a slice of it, one after the other."""
        chosen = range(self.batch_size) if samples is None else samples
        group = self._group(step)
        crops = [self._sample(group, SampleKey(self.seed, step, sample)) for sample in chosen]
        return self._assemble(crops, group, step, chosen)

    def name_fields(self, step: int, samples: Sequence[int]) -> list[str]:
        """Say which field each of some samples of a step is cut from, without reading it."""
        group = self._group(step)
        drawn = [self._draw(group, SampleKey(self.seed, step, sample))[0] for sample in samples]
        return [f"plate {at.plate.name} well {at.field.well} field {at.field.site}" for at in drawn]

    def begin(self, step: int, samples: range, pool: Executor) -> Callable[[], Batch]:
        """Let the threads of a pool cut the crops; what is returned waits for them."""
        group = self._group(step)
        pending = [pool.submit(self._sample, group, SampleKey(self.seed, step, sample)) for sample in samples]
        return lambda: self._assemble([future.result() for future in pending], group, step, samples)

    def _group(self, step: int) -> PlateGroup:
        return self.draws.draw_group(np.random.default_rng((STREAM, self.seed, step)))

    def _sample(self, group: PlateGroup, key: SampleKey) -> tuple[Float[ndarray, "c y x"], int | None]:
        drawn, generator = self._draw(group, key)
        return self._crop(drawn, generator), drawn.label

    def _draw(self, group: PlateGroup, key: SampleKey) -> tuple[DrawnField, np.random.Generator]:
        """Choose a sample's field; place and augmentation of its crop are drawn from what is returned with it."""
        generator = np.random.default_rng((STREAM, key.seed, key.step, key.sample))
        return self.draws.draw_field(group, key, generator), generator

    def _assemble(
        self,
        samples: Sequence[tuple[Float[ndarray, "c y x"], int | None]],
        group: PlateGroup,
        step: int,
        place: range,
    ) -> Batch:
        images = torch.from_numpy(np.stack([crop for crop, _ in samples]))
        numbers = [label for _, label in samples if label is not None]
        labels = torch.tensor(numbers) if len(numbers) == len(samples) else None
        return Batch(images, group.channels, step, place.start, self.batch_size, labels)

    def _crop(self, drawn: DrawnField, generator: np.random.Generator) -> Float[ndarray, "c y x"]:
        plate, field, side = drawn.plate, drawn.field, self.settings.crop_px
        window = drawn.window or Window(0, 0, *plate.shape(field))
        top = window.top + int(generator.integers(window.height - side + 1))
        left = window.left + int(generator.integers(window.width - side + 1))
        crop = read_normalized(plate, field, Window(top, left, side, side))
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
