"""How much of a stain can be told from the others: hide it wholly, and let the autoencoder predict it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from cellvim.embed.cutting import Cutting
from cellvim.embed.fields import tile_field
from cellvim.model import Mask, MaskedAutoencoder
from cellvim.store import PlateReader

EVERY = 7
"""One tile of this many is predicted, for time's sake; no divisor of the tiles of a field, so that places vary."""
BATCH = 24


@dataclass(frozen=True)
class Crops:
    """Standardised tiles of some plates, the same ones for every variant.

    Args:
        images: Pixels of mean 0 and deviation 1 over the whole field.
        perturbations: What was done to the well of each tile.
        channels: Stains.
    """

    images: Float[Tensor, "tile c y x"]
    perturbations: tuple[str, ...]
    channels: tuple[str, ...]


def read_crops(plates: Sequence[Path], *, crop_px: int) -> Crops:
    """Cut all fields into tiles, and keep one of every `EVERY`."""
    readers = [PlateReader(path) for path in plates]
    kept = [entry for number, entry in enumerate(_tiles(readers, crop_px)) if number % EVERY == 0]
    images = torch.from_numpy(np.stack([image for image, _ in kept]))
    return Crops(images, tuple(name for _, name in kept), readers[0].channels)


@torch.inference_mode()
def hidden_stain_errors(autoencoder: MaskedAutoencoder, crops: Crops) -> dict[str, dict[str, list[float]]]:
    """Hide each stain in turn and predict it from all others.

    Returns:
        By perturbation and stain, the sums of squared errors and of squared pixels.
    """
    side = autoencoder.encoder.settings.patch_px
    predictions = []
    for channel in range(len(crops.channels)):
        parts = []
        for images in crops.images.split(BATCH):
            batch, channels, height, width = images.shape
            hidden = torch.zeros(batch, channels, height // side, width // side, dtype=torch.bool)
            hidden[:, channel] = True
            mask = Mask(hidden, torch.zeros(channels, dtype=torch.bool), "channel")
            parts.append(autoencoder(images, crops.channels, mask, 0.0).prediction[:, channel])
        predictions.append(torch.cat(parts))
    return _sums(crops, torch.stack(predictions, 1))


def linear_errors(learned: Crops, judged: Crops) -> dict[str, dict[str, list[float]]]:
    """The same for a baseline: each pixel of a stain by linear regression on the same pixel of the others."""
    pixels = learned.images.movedim(1, 0).flatten(1).double()
    covariance = pixels @ pixels.T
    predicted = torch.zeros_like(judged.images)
    for channel in range(len(judged.channels)):
        others = [other for other in range(len(judged.channels)) if other != channel]
        slope = torch.linalg.solve(covariance[others][:, others], covariance[others, channel])
        predicted[:, channel] = torch.einsum("tcyx,c->tyx", judged.images[:, others], slope.float())
    return _sums(judged, predicted)


def share_explained(errors: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Share of the variance of hidden pixels that is predicted, by perturbation, mean over stains.

    0 is what the field's own mean explains, 1 is perfect; below 0 is worse than the mean.
    """
    return {
        name: float(np.mean([1 - error / total for error, total in stains.values()]))
        for name, stains in errors.items()
    }


def share_by_stain(errors: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """The same by stain, over all perturbations together."""
    stains = next(iter(errors.values()))
    sums = {stain: np.sum([of[stain] for of in errors.values()], axis=0) for stain in stains}
    return {stain: float(1 - error / total) for stain, (error, total) in sums.items()}


def _tiles(readers: Sequence[PlateReader], crop_px: int) -> Iterator[tuple[Float[ndarray, "c y x"], str]]:
    for plate in readers:
        names = _perturbations(plate)
        for key in plate.fields:
            tiled = tile_field(plate, key, Cutting(crop_px), needs_all=True)
            for image in tiled.tiles:
                yield image, names[key.well]


def _perturbations(plate: PlateReader) -> dict[str, str]:
    if plate.platemap is None:
        msg = f"plate {plate.name} of the study was ingested without its plate map"
        raise AssertionError(msg)
    names = plate.platemap.select("Metadata_Well", pl.col("Metadata_Perturbation").cast(pl.String))
    return dict(names.iter_rows())


def _sums(crops: Crops, predicted: Float[Tensor, "tile c y x"]) -> dict[str, dict[str, list[float]]]:
    error = (predicted - crops.images).double().square().sum((2, 3))
    total = crops.images.double().square().sum((2, 3))
    names = np.array(crops.perturbations)
    found: dict[str, dict[str, list[float]]] = {}
    for name in sorted(set(crops.perturbations)):
        at = torch.from_numpy(np.flatnonzero(names == name))
        sums = torch.stack([error[at].sum(0), total[at].sum(0)], 1)
        found[name] = dict(zip(crops.channels, sums.tolist(), strict=True))
    return found
