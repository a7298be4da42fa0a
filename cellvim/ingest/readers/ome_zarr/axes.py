"""Axes of OME-Zarr images in every version, and how large a pixel is along them.

Source:
    https://ngff.openmicroscopy.org, versions 0.1 to 0.5.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellvim.errors import InputError
from cellvim.ingest.readers.ome_zarr.lenient import as_list, as_mapping, as_number, clean

# Versions 0.1 and 0.2 knew no others.
_FIRST_AXES = ("t", "c", "z", "y", "x")
_LETTERS = {"time": "t", "channel": "c"}
_MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    # Beside the names of the specification, what writers have been seen to put there.
    **dict.fromkeys(("micrometer", "micron", "um", "\u00b5m", "\u03bcm"), 1.0),
}


def axes_of(multiscale: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name a letter of ``tczyx`` for each axis, ``?`` for any other, and the unit of each.

    Raises:
        InputError: The axes do not end in y and x.
    """
    entries = as_list(multiscale["axes"]) if "axes" in multiscale else list(_FIRST_AXES)
    letters, units = [], []
    for entry in entries:
        axis = {"name": entry} if isinstance(entry, str) else as_mapping(entry)
        kind, name = clean(axis.get("type")).lower(), clean(axis.get("name")).lower()
        name = _LETTERS.get(kind) or _LETTERS.get(name, name)
        letters.append(name if name in _FIRST_AXES else "?")
        units.append(clean(axis.get("unit")).lower())
    if letters[-2:] != ["y", "x"] or any(letters.count(letter) > 1 for letter in _FIRST_AXES):
        found = f"{folder} has the axes {', '.join(letters) or 'none'}; expected any of t, c and z once, then y and x"
        raise InputError(
            found, hint="images must be stored plane by plane: rewrite the plate with y and x last"
        )
    return tuple(letters), tuple(units)


def pixel_size(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], units: Sequence[str]
) -> tuple[float | None, str | None]:
    """Side of a pixel in micrometres, or None and why: the array's own scale times that of all arrays."""
    scales = [*_scales(dataset, len(units)), *_scales(multiscale, len(units))]
    if not scales:
        return None, "no pixel size is given"
    if not units[-1] or not units[-2]:
        return None, "the pixel size has no unit"
    if units[-1] not in _MICROMETRES or units[-2] not in _MICROMETRES:
        return None, f"the pixel size is in {units[-1]}"
    height, width = (
        _MICROMETRES[units[axis]] * math.prod(scale[axis] for scale in scales) for axis in (-2, -1)
    )
    if not (0 < width < 1e6 and abs(height - width) <= 1e-3 * width):
        return None, f"pixels are {width:g} x {height:g} micrometres"
    # 650 nanometres are 0.65 micrometres, not 0.6500000000000001.
    return float(f"{width:.12g}"), None


def finest_level(levels: Sequence[Mapping[str, Any]], axes: int) -> int:
    """Number of the level with the smallest pixels, from 0; 0 as well where not every level says how large they are."""
    widths = [math.prod(scale[-1] for scale in _scales(level, axes)) for level in levels]
    is_said = all(any(_scales(level, axes)) for level in levels) and all(map(math.isfinite, widths))
    return widths.index(min(widths)) if widths and is_said else 0


def _scales(owner: Mapping[str, Any], axes: int) -> Iterator[list[float]]:
    for entry in map(as_mapping, as_list(owner.get("coordinateTransformations"))):
        scale = [as_number(value) for value in as_list(entry.get("scale"))]
        if entry.get("type") == "scale" and len(scale) == axes:
            yield [math.nan if value is None else value for value in scale]
