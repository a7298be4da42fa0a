"""From the groups of one OME-Zarr plate to planes: wells, fields, channels, z and t."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.readers.ome_zarr.fields import Field, Found, find_fields
from cellvim.ingest.readers.ome_zarr.metadata import METADATA_FILES, PlateMetadata, plate_metadata
from cellvim.ingest.readers.ome_zarr.naming import ChannelKeys, channel_names, key_channels, number_fields
from cellvim.ingest.sources import MOST_FILES, Plane, SourcePlate, Wavelengths
from cellvim.store import FieldKey, safe_name


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
    found = find_fields(folder, metadata)
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
        _describe(folder, root, metadata, Found(fields, found.wells, found.notes), name=f"{name}_{number}")
        for number, fields in parts.items()
    ]


def _differ(found: Found, acquisitions: Sequence[int]) -> bool:
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


def _describe(folder: Path, root: Path, metadata: PlateMetadata, found: Found, *, name: str) -> SourcePlate:
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
    miscounted = [
        entry for entry in whole if entry.image and len(entry.image.labels) not in (0, entry.size("c"))
    ]
    if miscounted:
        notes.append(f"{len(miscounted)} fields name more or fewer channels than they have")
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


def _metadata_files(folder: Path, found: Found) -> Iterator[Path]:
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
    """Side of a pixel, and a note where the fields disagree about it, or some do not say."""
    images = [entry.image for entry in fields if entry.image is not None]
    sizes = [image.pixel_size_um for image in images if image.pixel_size_um is not None]
    reasons = [image.pixel_size_note for image in images if image.pixel_size_note is not None]
    if not sizes:
        return None, list(dict.fromkeys(reasons))[:1]
    if max(sizes) > 1.001 * min(sizes):
        named = ", ".join(f"{size:g}" for size in sorted(set(sizes))[:4])
        return None, [f"the fields have several pixel sizes ({named} um): none is recorded"]
    return sizes[0], [f"{len(reasons)} of {len(images)} fields: {reasons[0]}"] if reasons else []
