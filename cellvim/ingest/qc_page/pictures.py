"""Small grey pictures in the page itself: of suspicious planes, and of flat-fields."""

import base64
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

SIDE_PX = 112


def plane_picture(plane: NDArray[Any], window: tuple[float, float]) -> str:
    """The whole plane, averaged down; black and white are those of the plate's channel, so planes compare by eye."""
    return _grey_png(_shrink(plane), window)


def detail_picture(plane: NDArray[Any], window: tuple[float, float]) -> str:
    """The plane's centre, pixel by pixel: in a picture of the whole, blur does not show."""
    top, left = (max(side - SIDE_PX, 0) // 2 for side in plane.shape)
    return _grey_png(plane[top : top + SIDE_PX, left : left + SIDE_PX], window)


def flat_picture(flat: NDArray[Any]) -> str:
    """A flat-field from its darkest to its brightest place, or from 0.9 to 1.1 if it is flatter than that."""
    small = _shrink(flat)
    return _grey_png(small, (min(float(small.min()), 0.9), max(float(small.max()), 1.1)))


def _shrink(plane: NDArray[Any]) -> NDArray[np.float64]:
    """Average over squares of whole pixels, so that the longer side has at most `SIDE_PX`."""
    square = max(1, -(-max(plane.shape) // SIDE_PX))
    rows, columns = (max(side // square, 1) for side in plane.shape)
    height, width = min(square, plane.shape[0]), min(square, plane.shape[1])
    cut = plane[: rows * height, : columns * width].reshape(rows, height, columns, width)
    mean: NDArray[np.float64] = cut.mean(axis=(1, 3), dtype=np.float64)
    return mean


def _grey_png(picture: NDArray[Any], window: tuple[float, float]) -> str:
    low, high = window
    share = (picture.astype(np.float64) - low) / max(high - low, 1e-9)
    grey = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    png = imagecodecs.png_encode(np.ascontiguousarray(grey), level=9)
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
