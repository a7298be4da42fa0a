"""How much of a tile shows something: the share of it that is brighter than the plate's background.

Nothing is learned and nothing but two stored percentiles per channel decides, so that the number means the same in
every well of a plate. Errors go to the safe side: where a plate shows no background at all, nearly everything
counts as content, and nothing is dropped.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from scipy import ndimage

from cellvim.store import Intensity

SMOOTHING_PX = 3
"""Side of the square over which pixels are averaged first: a hot pixel or the camera's noise is no content."""
NOISE_PER_STEP = 1 / 0.85
"""Deviations of a normal background between its plate's 0.1th and 1st percentile: 0.76 if background is all there
is, 0.93 if it is a fifth of the pixels."""
NOISE_ABOVE_DARK = 6.0
"""A background's centre lies 1.6 to 2.3 deviations above the plate's 1st percentile; this leaves 3 to 5 beyond it,
which after smoothing no noise reaches."""
SHARE_OF_RANGE = 0.1
"""Background is rarely flat: what rises less than this share of the way to the 99th percentile is still background."""


def background_levels(intensity: Intensity, channels: Sequence[str]) -> Float[ndarray, " c"]:
    """Grey value of each channel up to which a pixel counts as background, raw counts.

    Six times the background's noise above the plate's 1st percentile, or a tenth of the way from there to the 99th,
    whichever is higher. The noise is read from how far the 0.1th percentile lies below the 1st, since the darkest
    pixels of a plate are background if there is any.
    """
    levels = []
    for channel in channels:
        percentiles = intensity.percentiles[channel]
        darkest, dark, bright = (percentiles[key] for key in ("0.1", "1", "99"))
        noise = (dark - darkest) * NOISE_PER_STEP
        levels.append(dark + max(NOISE_ABOVE_DARK * noise, SHARE_OF_RANGE * (bright - dark)))
    return np.array(levels, np.float64)


def is_bright(
    pixels: Shaped[ndarray, "c y x"], levels: Float[ndarray, " c"], is_valid: Bool[ndarray, " c"]
) -> Bool[ndarray, "y x"]:
    """Whether each pixel, averaged with its neighbours, is brighter than background in any valid channel.

    Args:
        pixels: A whole field, raw counts.
        levels: From `background_levels`.
        is_valid: Channels that are looked at.
    """
    bright = np.zeros(pixels.shape[1:], bool)
    for plane, level in zip(pixels[is_valid], levels[is_valid], strict=True):
        bright |= ndimage.uniform_filter(plane.astype(np.float32), SMOOTHING_PX) > level
    return bright


def shares(
    bright: Bool[ndarray, "y x"], corners: Sequence[tuple[int, int]], tile_px: int
) -> Float[ndarray, " tile"]:
    """Share of each tile that is bright, in [0, 1]; a tile that reaches past the field ends with it."""
    return np.array(
        [bright[top : top + tile_px, left : left + tile_px].mean() for top, left in corners], np.float64
    )
