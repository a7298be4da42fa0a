"""What the groups of an OME-Zarr plate say: plate, well and image, in every version from 0.1 to 0.5.

Only what is needed to find the pixels must be right; everything else may be missing or odd.

Source:
    https://ngff.openmicroscopy.org, versions 0.1 to 0.5.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellvim.errors import InputError
from cellvim.ingest.images.zarr_layout import read_json_object
from cellvim.ingest.readers.ome_zarr.axes import axes_of, finest_level, pixel_size
from cellvim.ingest.readers.ome_zarr.lenient import MOST_NAME_LENGTH, as_list, as_mapping, as_number, clean
from cellvim.ingest.sources import Wavelengths

METADATA_FILES = ("zarr.json", ".zattrs")
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
        misplaced: Wells whose indices of row and column say another place than their path.
    """

    version: str
    name: str
    wells: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    acquisitions: Mapping[int, str]
    acquired: str | None
    misplaced: tuple[str, ...] = ()


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
    attributes = as_mapping(content.get("attributes"))
    return as_mapping(attributes.get("ome")) or attributes


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
    wells = [as_mapping(well).get("path") for well in as_list(plate.get("wells"))]
    if not wells or not all(isinstance(path, str) for path in wells):
        raise _refuse(folder, "names no wells in its plate metadata")
    acquisitions = [as_mapping(entry) for entry in as_list(plate.get("acquisitions"))]
    starts = [start for entry in acquisitions if (start := _time(entry.get("starttime"))) is not None]
    return PlateMetadata(
        version=clean(attributes.get("version") or plate.get("version")),
        name=clean(plate.get("name")),
        wells=tuple(str(path) for path in wells),
        rows=tuple(clean(as_mapping(row).get("name")) for row in as_list(plate.get("rows"))),
        columns=tuple(clean(as_mapping(column).get("name")) for column in as_list(plate.get("columns"))),
        acquisitions={
            entry["id"]: clean(entry.get("name"))
            for entry in acquisitions
            if isinstance(entry.get("id"), int)
        },
        acquired=min(starts, default=None),
        misplaced=tuple(_misplaced(plate)),
    )


def well_images(folder: Path) -> list[WellImage]:
    """Fields that a well's group names.

    Raises:
        InputError: The group is lost or damaged, or a path leads out of it.
    """
    images = [
        as_mapping(entry) for entry in as_list(as_mapping(ome_attributes(folder).get("well")).get("images"))
    ]
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
        InputError: It is lost or damaged, its axes do not end in y and x, its first level is not the finest, or a
            path leads out of it.
    """
    attributes = ome_attributes(folder)
    multiscale = as_mapping(next(iter(as_list(attributes.get("multiscales"))), None))
    levels = [as_mapping(level) for level in as_list(multiscale.get("datasets"))]
    dataset = next(iter(levels), {})
    axes, units = axes_of(multiscale, folder)
    if (finest := finest_level(levels, len(axes))) > 0:
        what = f"lists its levels out of order: of {len(levels)}, number {finest + 1} has the smallest pixels"
        raise _refuse(folder, what)
    size, note = pixel_size(multiscale, dataset, units)
    channels = [
        as_mapping(channel) for channel in as_list(as_mapping(attributes.get("omero")).get("channels"))
    ]
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


def image_arrays(folder: Path) -> list[Path]:
    """Arrays of all levels of a field.

    Raises:
        InputError: The field's group is lost or damaged, or a path leads out of it.
    """
    multiscales = map(as_mapping, as_list(ome_attributes(folder).get("multiscales")))
    datasets = [
        as_mapping(entry) for multiscale in multiscales for entry in as_list(multiscale.get("datasets"))
    ]
    if not datasets:
        raise _refuse(folder, "names no arrays in its image metadata")
    return [folder.joinpath(*path_parts(dataset.get("path"), folder)) for dataset in datasets]


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


def _misplaced(plate: Mapping[str, Any]) -> Iterator[str]:
    names = [
        [as_mapping(entry).get("name") for entry in as_list(plate.get(kind))] for kind in ("rows", "columns")
    ]
    for well in map(as_mapping, as_list(plate.get("wells"))):
        indices = [well.get("rowIndex"), well.get("columnIndex")]
        named = [
            own[index] if isinstance(index, int) and 0 <= index < len(own) else None
            for own, index in zip(names, indices, strict=True)
        ]
        if indices != [None, None] and named != str(well["path"]).split("/")[-2:]:
            yield clean(well["path"])


def _label(channel: Mapping[str, Any]) -> str | None:
    return clean(channel.get("label")) or clean(channel.get("wavelength_id")) or None


def _nanometres(channel: Mapping[str, Any], kind: str) -> float | None:
    for name in (f"{kind}Wave", f"{kind}_wavelength", f"{kind}Wavelength"):
        value = as_number(channel.get(name))
        if value is not None and 100 <= value <= 2000:
            return value
    return None


def _time(seconds: Any) -> str | None:
    value = as_number(seconds)
    if value is None or not 0 < value < 1000 * _MOST_SECONDS:
        return None
    return datetime.fromtimestamp(value if value < _MOST_SECONDS else value / 1000, UTC).isoformat(
        timespec="seconds"
    )


def _refuse(folder: Path, what: str) -> InputError:
    return InputError(f"{folder} {what}", hint=_HINT)
