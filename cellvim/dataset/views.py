"""The crops by which a well is judged: the same ones every time, spread over what may be looked at."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cellvim.dataset.crops import read_normalized
from cellvim.dataset.index import Window
from cellvim.dataset.splits import FieldPart, LabelledWell

MOST_CROPS = 16
"""Crops by which a well is judged, at most."""


def read_views(well: LabelledWell, *, crop_px: int) -> Float[Tensor, "crops c y x"]:
    """Cut crops from the parts of a well, without augmentation."""
    crops = [
        read_normalized(well.plate, part.field, part.window) for part in view_windows(well, crop_px=crop_px)
    ]
    return torch.from_numpy(np.stack(crops))


def view_windows(well: LabelledWell, *, crop_px: int) -> list[FieldPart]:
    """Crops that do not overlap, evenly over each part; of too many, evenly chosen ones."""
    windows = [
        FieldPart(part.field, Window(part.window.top + top, part.window.left + left, crop_px, crop_px))
        for part in well.parts
        for top in _origins(part.window.height, crop_px)
        for left in _origins(part.window.width, crop_px)
    ]
    kept = np.linspace(0, len(windows) - 1, min(MOST_CROPS, len(windows))).round().astype(int)
    return [windows[number] for number in kept]


def _origins(length_px: int, crop_px: int) -> list[int]:
    """First pixels of as many crops as fit side by side, evenly spread; a single one in the middle."""
    count = length_px // crop_px
    slack = length_px - count * crop_px
    return [number * crop_px + slack * (2 * number + 1) // (2 * count) for number in range(count)]
