"""Which fields a training run may draw from, and how often."""

import copy
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellvim.errors import InputError
from cellvim.store import FieldKey, PlateReader, find_plates


@dataclass(frozen=True)
class PlateGroup:
    """Plates with the same channels in the same order: only they can share a batch."""

    channels: tuple[str, ...]
    plates: tuple[PlateReader, ...]
    wells: tuple[tuple[tuple[FieldKey, ...], ...], ...]
    """For each plate, for each well, its usable fields."""


@dataclass(frozen=True)
class Window:
    """Part of a field, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class DrawnField:
    """One draw: a field of a plate, and what it stands for."""

    plate: PlateReader
    field: FieldKey
    label: int | None = None
    """Number of its class, where the draw gives labels."""
    window: Window | None = None
    """Where in the field the crop must lie; anywhere if absent."""


class TrainingIndex:
    """All usable fields of some plates, drawn evenly over plates, then over wells, then over fields.

    Draws depend on what the plates are, not on where they lie or in which order they are named.
    A plate with nine fields a well therefore counts as much as one with four. Fields with a plane that ingest
    had to fill are left out: nobody should learn from a plane that no camera saw.

    Raises:
        InputError: A field is smaller than the crop, or no field is usable.
    """

    def __init__(self, plates: Sequence[PlateReader], *, crop_px: int) -> None:
        self.plates = tuple(sorted(plates, key=lambda plate: (plate.name, plate.pixels_fingerprint)))
        for plate in self.plates:
            _check_size(plate, crop_px)
        self.groups = _group_by_channels(self.plates)
        if not self.groups:
            found = "none of the plates has a field with every channel"
            raise InputError(found, hint="look at them with: cellvim info PLATE")

    @classmethod
    def open(cls, paths: Sequence[Path | str], *, crop_px: int) -> "TrainingIndex":
        return cls([PlateReader(path) for path in find_plates(paths)], crop_px=crop_px)

    @property
    def channels(self) -> tuple[str, ...]:
        """Every stain of every plate, in the order in which plates name them."""
        return tuple(dict.fromkeys(channel for group in self.groups for channel in group.channels))

    @property
    def field_count(self) -> int:
        return sum(len(fields) for group in self.groups for plate in group.wells for fields in plate)

    def plates_and_wells(self) -> Iterator[tuple[PlateReader, tuple[tuple[FieldKey, ...], ...]]]:
        """Each plate with a usable field, and the usable fields of each of its wells."""
        for group in self.groups:
            yield from zip(group.plates, group.wells, strict=True)

    def only(self, kept: Container[tuple[PlateReader, FieldKey]]) -> "TrainingIndex":
        """The same plates and channels, but fewer fields to draw from."""
        fewer = copy.copy(self)
        fewer.groups = tuple(group for whole in self.groups if (group := _only(whole, kept)).plates)
        return fewer

    def draw_group(self, generator: np.random.Generator) -> PlateGroup:
        shares = np.array([len(group.plates) for group in self.groups], dtype=np.float64)
        return self.groups[int(generator.choice(len(self.groups), p=shares / shares.sum()))]

    @staticmethod
    def draw_field(group: PlateGroup, generator: np.random.Generator) -> DrawnField:
        plate = int(generator.integers(len(group.plates)))
        wells = group.wells[plate]
        fields = wells[int(generator.integers(len(wells)))]
        return DrawnField(group.plates[plate], fields[int(generator.integers(len(fields)))])


def _only(group: PlateGroup, kept: Container[tuple[PlateReader, FieldKey]]) -> PlateGroup:
    members = []
    for plate, wells in zip(group.plates, group.wells, strict=True):
        fewer = (tuple(field for field in fields if (plate, field) in kept) for fields in wells)
        members.append((plate, tuple(fields for fields in fewer if fields)))
    used = [(plate, wells) for plate, wells in members if wells]
    return PlateGroup(group.channels, tuple(plate for plate, _ in used), tuple(wells for _, wells in used))


def _check_size(plate: PlateReader, crop_px: int) -> None:
    for field in plate.fields:
        height, width = plate.shape(field)
        if min(height, width) < crop_px:
            found = (
                f"plate {plate.name} well {field.well} field {field.site} is {height} x {width} px, "
                f"smaller than the crop of {crop_px} px"
            )
            raise InputError(
                found, hint="set crops.crop_px in the configuration to a smaller multiple of the patch"
            )


def _group_by_channels(plates: Sequence[PlateReader]) -> tuple[PlateGroup, ...]:
    by_channels: dict[tuple[str, ...], list[tuple[PlateReader, tuple[tuple[FieldKey, ...], ...]]]] = {}
    for plate in plates:
        wells: dict[str, list[FieldKey]] = {}
        for field in plate.fields:
            if plate.is_valid(field).all():
                wells.setdefault(field.well, []).append(field)
        if wells:
            usable = tuple(tuple(fields) for fields in wells.values())
            by_channels.setdefault(plate.channels, []).append((plate, usable))
    return tuple(
        PlateGroup(channels, tuple(plate for plate, _ in members), tuple(wells for _, wells in members))
        for channels, members in by_channels.items()
    )
