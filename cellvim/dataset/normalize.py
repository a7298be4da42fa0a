"""Raw camera counts to what a model sees: clip at the plate's percentiles, standardise by the field."""

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray

SMALLEST_DEVIATION = 1e-6


def normalize_pixels(
    pixels: Shaped[ndarray, "c y x"], bounds: Float[ndarray, "c 2"], moments: Float[ndarray, "c 2"]
) -> Float[ndarray, "c y x"]:
    """Clip each channel, then subtract the mean and divide by the deviation of its whole field.

    Plate percentiles remove hot pixels without touching the difference between wells. Field statistics, not
    those of the crop, keep an empty crop dark and a crowded one bright.

    Args:
        pixels: A field or any crop of it, raw counts.
        bounds: Lower and upper clipping value of each channel, raw counts.
        moments: Mean and standard deviation of each channel over the whole clipped field, raw counts.

    Returns:
        Float32. A channel without any contrast in its field is zero everywhere.
    """
    low, high = (bounds[:, side, None, None] for side in (0, 1))
    mean, deviation = (moments[:, side, None, None] for side in (0, 1))
    centred = np.clip(pixels.astype(np.float32), low.astype(np.float32), high.astype(np.float32)) - mean
    scale = np.where(deviation > SMALLEST_DEVIATION, deviation, np.inf)
    normalized: Float[ndarray, "c y x"] = (centred / scale).astype(np.float32)
    return normalized
