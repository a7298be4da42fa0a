"""From the groups of one OME-Zarr plate to planes: wells, fields, channels, z and t."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.ome_zarr_metadata import (
    METADATA_FILES,
    ImageMetadata,
    PlateMetadata,
    image_metadata,
    path_parts,
    plate_metadata,
    well_images,
)
from cellvim.ingest.ome_zarr_naming import (
    ChannelKeys,
    channel_names,
    key_channels,
    number_fields,
    processed_copies,
    well_names,
)
from cellvim.ingest.sources import MOST_FILES, Plane, SourcePlate, Wavelengths, some
from cellvim.ingest.tiff import DamagedImageError
from cellvim.ingest.zarr_arrays import array_layout
from cellvim.ingest.zarr_layout import ArrayLayout
from cellvim.store import FieldKey, safe_name

_MOST_PLANES = 100_000
_MOST_CHANNELS = 1_000
_MOST_NOTES = 10


@dataclass(frozen=True)
class Field:
    """A field as its well names it.

    Attributes:
        well: For example ``B03``.
        name: Its path inside the well.
        group: Its folder.
        acquisition: None if not said.
        image: None if its metadata are lost.
        layout: None if the array's metadata are lost.
        problem: Why something is None.
    """

    well: str
    name: str
    group: Path
    acquisition: int | None = None
    image: ImageMetadata | None = None
    layout: ArrayLayout | None = None
    problem: str | None = None

    def size(self, axis: str) -> int:
        """Length of an axis; 1 for one that is not there."""
        if self.image is None or self.layout is None or axis not in self.image.axes:
            return 1
        return self.layout.shape[self.image.axes.index(axis)]

    @property
    def labels(self) -> tuple[str | None, ...]:
        """One per channel."""
        named = self.image.labels if self.image else ()
        return tuple((*named, *[None] * self.size("c"))[: self.size("c")])


@dataclass
class _Found:
    """What is gathered about a plate."""

    fields: list[Field] = field(default_factory=list)
    wells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> list[Field]:
        """Fields whose metadata are there and make sense."""
        return [entry for entry in self.fields if entry.problem is None]


def read_plates(folder: Path, root: Path, *, name: str) -> list[SourcePlate]:
    """Describe one plate; several if its acquisitions have different channels, as in multiplexed staining.

    Args:
        folder: The plate's own folder.
        root: Folder that the names of images will be relative to.
        name: What to call it.

    Raises:
        InputError: The plate's metadata are damaged, lead out of it, or describe nothing that can be read.
    """
    metadata = plate_metadata(folder)
    found = _find_fields(folder, metadata)
    if not found.whole:
        problem = next((entry.problem for entry in found.fields), "none of its wells is there")
        message = f"{folder}: none of its {len(found.fields)} fields can be read: {problem}"
        raise InputError(
            message, hint="copy the whole folder of the plate, with its hidden files (.zattrs, .zarray)"
        )
    acquisitions = sorted({entry.acquisition for entry in found.fields if entry.acquisition is not None})
    if len(acquisitions) < 2:
        return [_describe(folder, root, metadata, found, name=name)]
    names = ", ".join(
        f"{number} ({metadata.acquisitions.get(number) or 'unnamed'})" for number in acquisitions
    )
    if not _differ(found, acquisitions):
        found.notes.append(f"acquisitions {names} are taken together, each field as a site of its own")
        return [_describe(folder, root, metadata, found, name=name)]
    found.notes.append(f"acquisitions {names} have different channels: each becomes a plate of its own")
    parts = {
        number: [entry for entry in found.fields if entry.acquisition == number] for number in acquisitions
    }
    return [
        _describe(folder, root, metadata, _Found(fields, found.wells, found.notes), name=f"{name}_{number}")
        for number, fields in parts.items()
    ]


def _find_fields(folder: Path, metadata: PlateMetadata) -> _Found:
    found = _Found()
    names, found.notes = well_names(metadata)
    lost: list[tuple[str, Path, str]] = []
    copies: list[str] = []
    inside = folder.resolve()
    for path, well in names.items():
        group = folder.joinpath(*path_parts(path, folder))
        found.wells.append(well)
        if not group.is_dir():
            # A plan, or a part of the plate that was not copied: said with the wells that have no images.
            continue
        try:
            images = well_images(group)
        except InputError as error:
            lost.append((well, group, error.found))
            continue
        processed = processed_copies(images)
        copies += [f"{path}/{image.path}" for image in processed]
        found.fields += [
            _field(Field(well, image.path, group / image.path, image.acquisition), inside)
            for image in images
            if image not in processed
        ]
    usual = Counter((entry.name, entry.acquisition) for entry in found.fields)
    often = [key for key, count in usual.items() if 2 * count >= max(usual.values())]
    for well, group, problem in lost:
        found.fields += [Field(well, name, group / name, number, problem=problem) for name, number in often]
    # Of a damaged array preflight tells the reason; of a damaged group only this does.
    problems = [entry.problem for entry in found.fields if entry.problem and entry.layout is None]
    found.notes += list(dict.fromkeys(problems))[:_MOST_NOTES]
    if copies:
        found.notes.append(
            f"{len(copies)} images are processed copies of others and left out: {some(copies)}"
        )
    return found


def _field(entry: Field, inside: Path) -> Field:
    """Read a field's metadata.

    Raises:
        InputError: The field lies outside of the plate.
    """
    image, layout, problem = None, None, None
    _refuse_outside(entry.group, inside)
    try:
        image = image_metadata(entry.group)
    except InputError as error:
        return replace(entry, problem=error.found)
    array = entry.group / image.dataset
    _refuse_outside(array, inside)
    try:
        layout = array_layout(array)
        problem = _misfit(image, layout)
    except DamagedImageError as error:
        problem = f"{array} {error.found}"
    return replace(entry, image=image, layout=layout, problem=problem)


def _refuse_outside(path: Path, inside: Path) -> None:
    if not path.resolve().is_relative_to(inside):
        message = f"{path} lies outside of the plate {inside.name}: a link leads there"
        raise InputError(message, hint="put the images themselves into the plate's folder")


def _misfit(image: ImageMetadata, layout: ArrayLayout) -> str | None:
    sizes = dict(zip(image.axes, layout.shape, strict=False))
    if len(layout.shape) != len(image.axes):
        return f"{layout.metadata.parent} has {len(layout.shape)} axes, its metadata name {len(image.axes)}"
    if sizes.get("?", 1) > 1:
        return f"{layout.metadata.parent} has an axis of {sizes['?']} that is none of t, c, z, y and x"
    planes = sizes.get("t", 1) * sizes.get("c", 1) * sizes.get("z", 1)
    if planes > _MOST_PLANES or sizes.get("c", 1) > _MOST_CHANNELS:
        return f"{layout.metadata.parent} claims {planes:,} planes, at most {_MOST_PLANES:,} are read"
    return None


def _differ(found: _Found, acquisitions: Sequence[int]) -> bool:
    """Whether a channel is one stain in one acquisition and another in the next."""
    if any(entry.acquisition is None for entry in found.fields):
        return False
    parts = [
        [entry.labels for entry in found.whole if entry.acquisition == number] for number in acquisitions
    ]
    return (
        key_channels([labels for part in parts for labels in part]) == "label"
        and all(parts)
        and all(key_channels(part) == "index" for part in parts)
    )


def _describe(folder: Path, root: Path, metadata: PlateMetadata, found: _Found, *, name: str) -> SourcePlate:
    whole = found.whole
    sites, notes = number_fields([(entry.well, entry.name) for entry in found.fields])
    by = key_channels([entry.labels for entry in whole])
    if by == "label":
        notes.append("fields differ in their channels: channels are told apart by their names")
    stains: dict[str, str] = {}
    wavelengths: dict[str, Wavelengths] = {}
    for entry in whole:
        for index, key in enumerate(channel_names(entry.labels, by)):
            if label := entry.labels[index]:
                stains.setdefault(key, label)
            if entry.image and index < len(entry.image.wavelengths):
                wavelengths.setdefault(key, entry.image.wavelengths[index])
    size, size_notes = _pixel_size(whole)
    return SourcePlate(
        name=safe_name(name),
        folder=root,
        evidence=f"OME-Zarr {metadata.version or 'of unknown version'}: found plate metadata in {folder.name}",
        planes=tuple(_planes(found.fields, whole, sites, by)),
        stains=stains,
        pixel_size_um=size,
        declared_wells=tuple(dict.fromkeys(found.wells)),
        notes=(*found.notes, *notes, *size_notes),
        wavelengths=wavelengths,
        acquired=metadata.acquired,
        barcode=metadata.name or None,
        described_by=tuple(_metadata_files(folder, found)),
    )


def _metadata_files(folder: Path, found: _Found) -> Iterator[Path]:
    """Of the plate, its wells and its fields; those of arrays show in the pixels."""
    wells = dict.fromkeys(entry.group.parent for entry in found.whole)
    for group in (folder, *wells, *(entry.group for entry in found.whole)):
        yield from [group / name for name in METADATA_FILES if (group / name).is_file()][:1]


def _planes(
    fields: Sequence[Field], whole: Sequence[Field], sites: Mapping[tuple[str, str], int], by: ChannelKeys
) -> Iterator[Plane]:
    has_z, has_t = (any(entry.size(axis) > 1 for entry in whole) for axis in "zt")
    names = {(entry.well, entry.name): channel_names(entry.labels, by) for entry in whole}
    # A field of which nothing is known lacks what most others have.
    usual_keys = Counter(names.values()).most_common(1)[0][0]
    usual = Counter(tuple(entry.size(axis) for axis in "tcz") for entry in whole).most_common(1)[0][0]
    if sum(prod(usual if entry.problem else map(entry.size, "tcz")) for entry in fields) > MOST_FILES:
        message = f"{fields[0].group.parent} and its neighbours claim more than {MOST_FILES:,} planes"
        raise InputError(message, hint="no plate has as many: repair the shapes in the arrays' metadata")
    for entry in fields:
        key = FieldKey(entry.well, sites[entry.well, entry.name])
        sizes = usual if entry.problem else tuple(entry.size(axis) for axis in "tcz")
        keys = usual_keys if entry.problem else names[entry.well, entry.name]
        path = entry.group / entry.image.dataset if entry.image and not entry.layout else entry.group
        axes: tuple[str, ...] = ("t", "c", "z")
        if entry.problem is None and entry.image:
            path, axes = entry.group / entry.image.dataset, entry.image.axes[:-2]
        for t, c, z in product(range(sizes[0]), range(len(keys)), range(sizes[2])):
            place = {"t": t, "c": c, "z": z}
            yield Plane(
                path,
                key,
                keys[c],
                z=z if has_z else None,
                t=t if has_t else None,
                part=tuple(place.get(axis, 0) for axis in axes),
            )


def _pixel_size(fields: Sequence[Field]) -> tuple[float | None, list[str]]:
    found = Counter(
        (entry.image.pixel_size_um, entry.image.pixel_size_note)
        for entry in fields
        if entry.image is not None
    )
    (size, note), count = found.most_common(1)[0]
    if len(found) > 1:
        others = some([other or reason for (other, reason) in found if (other, reason) != (size, note)])
        return size, [f"{sum(found.values()) - count} fields have another pixel size than {size}: {others}"]
    return size, [note] if note else []
