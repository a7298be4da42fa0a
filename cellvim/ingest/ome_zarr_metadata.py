"""What the groups of an OME-Zarr plate say: plate, well and image, in every version from 0.1 to 0.5.

Only what is needed to find the pixels must be right; everything else may be missing or odd.

Source:
    https://ngff.openmicroscopy.org, versions 0.1 to 0.5.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellvim.errors import InputError
from cellvim.ingest.sources import Wavelengths
from cellvim.ingest.zarr_layout import read_json_object

METADATA_FILES = ("zarr.json", ".zattrs")
MOST_NAME_LENGTH = 100
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
_MOST_SECONDS = 4_102_444_800  # the year 2100; larger times are milliseconds
_HINT = "repair the plate's metadata, or ask whoever wrote it"


@dataclass(frozen=True)
class PlateMetadata:
    """A plate's group.

    Attributes:
        version: Of the format, for example ``0.4``; empty if not said.
        name: Empty if not said.
        wells: Path of each well inside the plate, for example ``B/03``.
        rows: Names of the rows.
        columns: Names of the columns.
        acquisitions: Number to name.
        acquired: When the first acquisition began, ISO 8601.
    """

    version: str
    name: str
    wells: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    acquisitions: Mapping[int, str]
    acquired: str | None


@dataclass(frozen=True)
class WellImage:
    """An entry of a well's list of fields."""

    path: str
    acquisition: int | None


@dataclass(frozen=True)
class ImageMetadata:
    """A field's group.

    Attributes:
        dataset: Path of the array with the full resolution, inside of the group.
        axes: A letter of ``tczyx`` for each axis, ``?`` for any other.
        labels: Name of each channel, None where it has none; may be shorter than the channels are many.
        wavelengths: Of each channel, as far as given.
        pixel_size_um: None if not said.
        pixel_size_note: Why there is no pixel size.
    """

    dataset: str
    axes: tuple[str, ...]
    labels: tuple[str | None, ...]
    wavelengths: tuple[Wavelengths, ...]
    pixel_size_um: float | None
    pixel_size_note: str | None


def ome_attributes(group: Path) -> dict[str, Any]:
    """Attributes of a zarr group, whichever version of zarr wrote it.

    Raises:
        InputError: There are none, or they are damaged.
    """
    found = next((group / name for name in METADATA_FILES if (group / name).is_file()), None)
    if found is None:
        message = f"{group} lacks its metadata: neither zarr.json nor .zattrs is there"
        raise InputError(message, hint=_HINT)
    try:
        content = read_json_object(found)
    except InputError as error:
        raise _refuse(group, error.found) from error
    if found.name == ".zattrs":
        return content
    attributes = _mapping(content.get("attributes"))
    return _mapping(attributes.get("ome")) or attributes


def plate_metadata(folder: Path) -> PlateMetadata:
    """Read the plate's own group.

    Raises:
        InputError: It is no plate, or names no wells.
    """
    attributes = ome_attributes(folder)
    plate = attributes.get("plate")
    if not isinstance(plate, dict):
        kinds = ", ".join(sorted(clean(key) for key in attributes)[:5]) or "nothing"
        raise _refuse(folder, f"has no plate metadata (found: {kinds})")
    wells = [_mapping(well).get("path") for well in _list(plate.get("wells"))]
    if not wells or not all(isinstance(path, str) for path in wells):
        raise _refuse(folder, "names no wells in its plate metadata")
    acquisitions = [_mapping(entry) for entry in _list(plate.get("acquisitions"))]
    starts = [start for entry in acquisitions if (start := _time(entry.get("starttime"))) is not None]
    return PlateMetadata(
        version=clean(attributes.get("version") or plate.get("version")),
        name=clean(plate.get("name")),
        wells=tuple(str(path) for path in wells),
        rows=tuple(clean(_mapping(row).get("name")) for row in _list(plate.get("rows"))),
        columns=tuple(clean(_mapping(column).get("name")) for column in _list(plate.get("columns"))),
        acquisitions={
            entry["id"]: clean(entry.get("name"))
            for entry in acquisitions
            if isinstance(entry.get("id"), int)
        },
        acquired=min(starts, default=None),
    )


def well_images(folder: Path) -> list[WellImage]:
    """Fields that a well's group names.

    Raises:
        InputError: The group is lost or damaged, or a path leads out of it.
    """
    images = [_mapping(entry) for entry in _list(_mapping(ome_attributes(folder).get("well")).get("images"))]
    if not images:
        raise _refuse(folder, "names no images in its well metadata")
    found = []
    for image in images:
        number = image.get("acquisition")
        path = "/".join(path_parts(image.get("path"), folder))
        found.append(WellImage(path, number if isinstance(number, int) else None))
    return found


def image_metadata(folder: Path) -> ImageMetadata:
    """Read a field's group.

    Raises:
        InputError: It is lost or damaged, its axes do not end in y and x, or a path leads out of it.
    """
    attributes = ome_attributes(folder)
    multiscale = _mapping(next(iter(_list(attributes.get("multiscales"))), None))
    dataset = _mapping(next(iter(_list(multiscale.get("datasets"))), None))
    axes, units = _axes(multiscale, folder)
    size, note = _pixel_size(_factor_per_axis(multiscale, dataset, len(axes)), units)
    channels = [_mapping(channel) for channel in _list(_mapping(attributes.get("omero")).get("channels"))]
    return ImageMetadata(
        dataset="/".join(path_parts(dataset.get("path"), folder)),
        axes=axes,
        labels=tuple(_label(channel) for channel in channels),
        wavelengths=tuple(
            Wavelengths(_nanometres(channel, "excitation"), _nanometres(channel, "emission"))
            for channel in channels
        ),
        pixel_size_um=size,
        pixel_size_note=note,
    )


def path_parts(text: Any, folder: Path) -> list[str]:
    """Split a path that metadata name.

    Raises:
        InputError: It is no path, or leads out of its group.
    """
    if (
        not isinstance(text, str)
        or not text.isprintable()
        or "\\" in text
        or len(text) > 4 * MOST_NAME_LENGTH
    ):
        raise _refuse(folder, f"names a path that is none: {clean(text)!r}")
    parts = text.rstrip("/").split("/")
    # Names that begin with a dot are metadata and leftovers of systems.
    if any(not part or part.startswith(".") for part in parts):
        raise _refuse(folder, f"names the path {text!r}, which leads elsewhere")
    return parts


def clean(text: Any) -> str:
    """A stranger's name, cut and on one line; empty if it is none."""
    if not isinstance(text, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MOST_NAME_LENGTH]).strip()


def _axes(multiscale: Mapping[str, Any], folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A letter and a unit for each axis."""
    entries = _list(multiscale.get("axes")) or list(_FIRST_AXES)
    letters, units = [], []
    for entry in entries:
        axis = {"name": entry} if isinstance(entry, str) else _mapping(entry)
        kind, name = clean(axis.get("type")).lower(), clean(axis.get("name")).lower()
        name = _LETTERS.get(kind) or _LETTERS.get(name, name)
        letters.append(name if name in _FIRST_AXES else "?")
        units.append(clean(axis.get("unit")).lower())
    if letters[-2:] != ["y", "x"] or any(letters.count(letter) > 1 for letter in _FIRST_AXES):
        names = ", ".join(letters)
        raise _refuse(folder, f"has the axes {names}; expected any of t, c and z once, then y and x")
    return tuple(letters), tuple(units)


def _factor_per_axis(
    multiscale: Mapping[str, Any], dataset: Mapping[str, Any], axes: int
) -> list[float] | None:
    """Size of a pixel along each axis: the array's own scale times that of all arrays; None if nobody says."""
    factors = None
    for owner in (dataset, multiscale):
        for entry in map(_mapping, _list(owner.get("coordinateTransformations"))):
            scale = [_number(value) for value in _list(entry.get("scale"))]
            if entry.get("type") == "scale" and len(scale) == axes:
                factors = factors or [1.0] * axes
                factors = [
                    math.nan if value is None else factor * value
                    for factor, value in zip(factors, scale, strict=True)
                ]
    return factors


def _pixel_size(factors: list[float] | None, units: tuple[str, ...]) -> tuple[float | None, str | None]:
    if factors is None:
        return None, "no pixel size is given"
    if not units[-1] or not units[-2]:
        return None, "the pixel size has no unit"
    if units[-1] not in _MICROMETRES or units[-2] not in _MICROMETRES:
        return None, f"the pixel size is in {units[-1]}"
    height, width = (
        factor * _MICROMETRES[unit] for factor, unit in zip(factors[-2:], units[-2:], strict=True)
    )
    if not (0 < width < 1e6 and abs(height - width) <= 1e-3 * width):
        return None, f"pixels are {width:g} x {height:g} micrometres"
    # 650 nanometres are 0.65 micrometres, not 0.6500000000000001.
    return float(f"{width:.12g}"), None


def _label(channel: Mapping[str, Any]) -> str | None:
    return clean(channel.get("label")) or clean(channel.get("wavelength_id")) or None


def _nanometres(channel: Mapping[str, Any], kind: str) -> float | None:
    for name in (f"{kind}Wave", f"{kind}_wavelength", f"{kind}Wavelength"):
        value = _number(channel.get(name))
        if value is not None and 100 <= value <= 2000:
            return value
    return None


def _time(seconds: Any) -> str | None:
    value = _number(seconds)
    if value is None or not 0 < value < 1000 * _MOST_SECONDS:
        return None
    return datetime.fromtimestamp(value if value < _MOST_SECONDS else value / 1000, UTC).isoformat(
        timespec="seconds"
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse(folder: Path, what: str) -> InputError:
    return InputError(f"{folder} {what}", hint=_HINT)
