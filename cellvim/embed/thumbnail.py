"""A small colour picture of a well, so that a report can show what a number looks like."""

import imagecodecs
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray

from cellvim.store import PlateReader

THUMBNAIL_PX = 96
COLOURS = np.array(
    [
        (0.20, 0.35, 1.00),
        (0.15, 0.85, 0.25),
        (1.00, 0.25, 0.20),
        (0.95, 0.80, 0.15),
        (0.90, 0.25, 0.90),
        (0.15, 0.85, 0.90),
        (0.75, 0.75, 0.75),
        (1.00, 0.55, 0.10),
    ],
    dtype=np.float32,
)
"""Colour of the first, second, ... channel, red green blue in [0, 1]."""


def compose_thumbnail(pixels: Shaped[ndarray, "c y x"], plate: PlateReader, side_px: int) -> bytes:
    """Mix all channels into one PNG of the field's central square.

    Contrast is that of the plate (1st to 99.9th percentile), so that wells of one plate compare by eye.
    """
    side = min(pixels.shape[1:])
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    square = pixels[:, top : top + side, left : left + side].astype(np.float32)
    mixed = np.zeros((side_px, side_px, 3), np.float32)
    for index, channel in enumerate(plate.channels):
        percentiles = plate.intensity.percentiles[channel]
        low, high = percentiles["1"], max(percentiles["99.9"], percentiles["1"] + 1)
        brightness = np.clip((_shrink(square[index], side_px) - low) / (high - low), 0, 1)
        mixed += brightness[..., None] * COLOURS[index % len(COLOURS)]
    return _encode_png((np.clip(mixed, 0, 1) * 255).round().astype(np.uint8))


def _shrink(picture: Float[ndarray, "side side"], side_px: int) -> Float[ndarray, "small small"]:
    """Average over the pixels that fall into each small one."""
    borders = np.linspace(0, len(picture), side_px + 1).astype(int)[:-1]
    if len(picture) < side_px:
        return np.asarray(picture[np.ix_(borders, borders)])
    counts = np.diff(np.append(borders, len(picture))).astype(np.float32)
    summed = np.add.reduceat(np.add.reduceat(picture, borders, axis=0), borders, axis=1)
    return np.asarray(summed / counts[:, None] / counts[None, :])


def _encode_png(picture: UInt8[ndarray, "y x rgb"]) -> bytes:
    return bytes(imagecodecs.png_encode(picture, level=9))
