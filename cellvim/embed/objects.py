"""Objects of a field, and the crop that shows each."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray
from scipy import ndimage


@dataclass(frozen=True)
class Objects:
    """Objects of one field, by number.

    Args:
        numbers: Values in the label image.
        boxes: Top, left, bottom and right of each, the last two exclusive.
        areas: Pixels of each.
        centres: Row and column of each centroid, rounded.
    """

    numbers: Int[ndarray, " n"]
    boxes: Int[ndarray, "n 4"]
    areas: Int[ndarray, " n"]
    centres: Int[ndarray, "n 2"]

    def __len__(self) -> int:
        return len(self.numbers)

    def only(self, chosen: Bool[ndarray, " n"]) -> "Objects":
        return Objects(self.numbers[chosen], self.boxes[chosen], self.areas[chosen], self.centres[chosen])

    def touches_border(self, height: int, width: int) -> Bool[ndarray, " n"]:
        """Whether the field's edge may have cut each object."""
        top, left, bottom, right = self.boxes.T
        return np.asarray((top == 0) | (left == 0) | (bottom == height) | (right == width))

    def is_larger_than(self, tile_px: int) -> Bool[ndarray, " n"]:
        """Whether a tile cannot show all of each object."""
        sizes = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.asarray((sizes > tile_px).any(axis=1))

    def corners(self, height: int, width: int, tile_px: int) -> list[tuple[int, int]]:
        """Top-left corner of the tile around each centroid, moved into the field where it would reach past it."""
        furthest = np.maximum(np.array([height, width]) - tile_px, 0)
        return [tuple(corner) for corner in np.clip(self.centres - tile_px // 2, 0, furthest).tolist()]


def find_objects(labels: Int[ndarray, "y x"]) -> Objects:
    """Measure the objects of a label image; 0 is background."""
    numbers, compact = _renumbered(labels)
    slices = ndimage.find_objects(compact)
    boxes = [(y.start, x.start, y.stop, x.stop) for y, x in slices]
    index = np.arange(1, numbers.size + 1)
    areas = np.bincount(compact.ravel(), minlength=numbers.size + 1)[1:]
    centres = np.array(ndimage.center_of_mass(compact > 0, compact, index)).reshape(-1, 2)
    return Objects(
        numbers=numbers.astype(np.int64),
        boxes=np.array(boxes, np.int64).reshape(-1, 4),
        areas=areas.astype(np.int64),
        centres=np.rint(centres).astype(np.int64),
    )


def _renumbered(labels: Int[ndarray, "y x"]) -> tuple[Int[ndarray, " n"], Int[ndarray, "y x"]]:
    """Numbers in use, and the labels as 1, 2, 3 and so on in their place; fast for numbers as programs give them."""
    if labels.max() < labels.size:
        is_used = np.bincount(labels.ravel()) > 0
        is_used[0] = False
        return np.flatnonzero(is_used), np.cumsum(is_used)[labels]
    numbers = np.unique(labels[labels > 0])
    return numbers, np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)
