"""The fields of one OME-Zarr plate: what its groups name, and what is there."""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.images.zarr_arrays import array_layout
from cellvim.ingest.images.zarr_layout import ArrayLayout
from cellvim.ingest.readers.ome_zarr.metadata import (
    ImageMetadata,
    PlateMetadata,
    image_metadata,
    path_parts,
    well_images,
)
from cellvim.ingest.readers.ome_zarr.naming import processed_copies, well_names
from cellvim.ingest.sources import some

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
class Found:
    """What is gathered about a plate: its fields, all wells that it names, and notes."""

    fields: list[Field] = field(default_factory=list)
    wells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> list[Field]:
        """Fields whose metadata are there and make sense."""
        return [entry for entry in self.fields if entry.problem is None]


def find_fields(folder: Path, metadata: PlateMetadata) -> Found:
    """Look up every well and field that a plate names.

    Raises:
        InputError: A path leads out of the plate, or names no well.
    """
    found = Found()
    names, found.notes = well_names(metadata)
    if metadata.misplaced:
        # Seen in the examples of the specification's own authors.
        found.notes.append(
            f"rowIndex and columnIndex of {len(metadata.misplaced)} wells say another place than their path, "
            f"which is taken: {some(metadata.misplaced)}"
        )
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
