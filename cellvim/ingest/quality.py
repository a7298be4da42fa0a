"""What a plane tells about itself while it passes by: its focus, its saturation, and blocks no camera makes."""

from functools import cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Plane = NDArray[np.unsignedinteger]

FOCUS = "focus_slope"
EMPTY = "empty_fraction"
LARGEST = "largest"
AT_LARGEST = "share_at_largest"

# Nine tiles of 128 pixels see the whole field's optics at an eighth of a full transform's cost.
TILE_PX = 128
TILES_PER_SIDE = 3
SMALLEST_TILE_PX = 32
# In cycles per pixel. Below an eighth lies the structure of cells, above it little but the camera's noise.
HIGHEST_FREQUENCY = 1 / 8
LOWEST_RING = 2

# Flat, as what a broken copy loses of a file is a run of rows: 7 lost rows always cover a whole block.
EMPTY_BLOCK_PX = (4, 128)
# Eight pixels of each block, looked at first: hardly any block of a real image has them all equal.
_PROBE_STEP_PX = (3, 32)

SHARPNESS_LAG = 2


def measure_plane(plane: Plane) -> dict[str, float]:
    """Measure one plane of raw pixels, axes (y, x).

    Returns:
        ``focus_slope`` (left out where it is undefined: see `focus_slope`), ``empty_fraction``, the plane's
        ``largest`` value and ``share_at_largest``, the share of its pixels that have it, from which follows
        how much of it is saturated once the largest value of the whole plate is known.
    """
    largest = plane.max()
    measures = {
        EMPTY: empty_fraction(plane),
        LARGEST: float(largest),
        AT_LARGEST: float(np.count_nonzero(plane == largest) / plane.size),
    }
    slope = focus_slope(plane)
    return measures if slope is None else {FOCUS: slope, **measures}


def focus_slope(plane: Plane) -> float | None:
    """Slope of log power against log frequency: the more negative, the blurrier.

    The power spectrum is Welch's: nine tiles of 128 x 128 pixels on a fixed grid over the field (smaller fields
    have smaller tiles), each less its mean, under a Hann window, transformed, and their power summed. It is then
    averaged over rings of whole frequencies, and a straight line laid through the rings from 2 cycles per tile to
    1/8 cycle per pixel, all rings alike.

    White noise, as of a field without cells, has 0; fluorescent cells in focus have about -1 to -4; defocus and
    blur make it fall to -5 and below. Values depend on magnification and stain, so compare them within one
    channel of one plate. The relative of the same kind is CellProfiler's ``PowerLogLogSlope``, which sums the
    power of each ring and so lies about 1 higher.

    Returns:
        None for a field under 32 pixels, and where there is no power to speak of, as in a flat image.
    """
    side = min(TILE_PX, 1 << (min(plane.shape).bit_length() - 1))
    if side < SMALLEST_TILE_PX:
        return None
    tiles = np.stack([plane[y : y + side, x : x + side] for y, x in _corners(*plane.shape, side)], dtype="f4")
    tiles -= tiles.mean(axis=(1, 2), keepdims=True)
    tiles *= _window(side)
    last = max(int(side * HIGHEST_FREQUENCY), LOWEST_RING + 2)
    spectra = scipy.fft.rfft2(tiles, overwrite_x=True)[:, :, : last + 1]
    power = (np.square(spectra.real) + np.square(spectra.imag)).sum(axis=0, dtype=np.float64)
    rings, weights = _rings(side, last)
    totals = np.bincount(rings, weights=power.ravel() * weights)[LOWEST_RING : last + 1]
    if not (totals > 0).all():
        return None
    levels = np.log(totals / np.bincount(rings, weights=weights)[LOWEST_RING : last + 1])
    frequencies = np.log(np.arange(LOWEST_RING, last + 1))
    frequencies -= frequencies.mean()
    return float((frequencies * levels).sum() / np.square(frequencies).sum())


def empty_fraction(plane: Plane) -> float:
    """Share of blocks, 4 rows by 128 columns, of equal pixels. Lost data make them, a camera's noise none.

    Images of 8 bits with a black background have some too, so compare within one plate. What is left over at the
    right and lower edge does not count; a smaller field is one block.
    """
    height, width = (min(pair) for pair in zip(EMPTY_BLOCK_PX, plane.shape, strict=True))
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    blocks = plane[: rows * height, : columns * width].reshape(rows, height, columns, width)
    blocks = blocks.transpose(0, 2, 1, 3)
    down, across = _PROBE_STEP_PX
    first = blocks[:, :, :1, :1]
    suspects = (blocks[:, :, ::down, ::across] == first).all(axis=(2, 3))
    if not suspects.any():
        return 0.0
    is_empty = (blocks[suspects] == first[suspects]).all(axis=(1, 2))
    return float(np.count_nonzero(is_empty) / suspects.size)


def sharpness(plane: Plane) -> float:
    """How sharp a plane is beside others of its stack: Brenner's gradient of 2 x 2 bins, over the squared mean.

    Bins of four pixels halve the noise and lose nothing that differs between planes in and out of focus; the
    mean makes up for a lamp that wanders and a stain that fades. Sums are of whole numbers and exact.

    Source:
        Brenner et al. 1976, "An automated microscope for cytologic research" (doi:10.1177/24.1.1254907).
    """
    height, width = (side - side % 2 for side in plane.shape)
    rows = np.add(plane[:height:2, :width], plane[1:height:2, :width], dtype=np.int32)
    bins = (rows[:, ::2] + rows[:, 1::2]).astype(np.float64)
    mean = bins.mean()
    if mean == 0:
        return 0.0
    down = bins[SHARPNESS_LAG:] - bins[:-SHARPNESS_LAG]
    across = bins[:, SHARPNESS_LAG:] - bins[:, :-SHARPNESS_LAG]
    energy = np.einsum("ij,ij->", down, down) / down.size + np.einsum("ij,ij->", across, across) / across.size
    return float(energy / mean**2)


@cache
def _corners(height: int, width: int, side: int) -> list[tuple[int, int]]:
    rows, columns = (
        [number * (length - side) // (TILES_PER_SIDE - 1) for number in range(TILES_PER_SIDE)]
        for length in (height, width)
    )
    return [(row, column) for row in rows for column in columns]


@cache
def _window(side: int) -> NDArray[np.float32]:
    ramp = np.sin(np.pi * np.arange(side) / side) ** 2
    return np.outer(ramp, ramp).astype(np.float32)


@cache
def _rings(side: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Which ring each used coefficient of a real transform is in, and how many of the full one it stands for."""
    down, across = np.fft.fftfreq(side, 1 / side)[:, None], np.arange(last + 1)[None]
    radius = np.rint(np.hypot(down, across)).astype(np.intp)
    weights = np.broadcast_to(np.where(across == 0, 1.0, 2.0), radius.shape)
    return radius.ravel(), weights.ravel()
