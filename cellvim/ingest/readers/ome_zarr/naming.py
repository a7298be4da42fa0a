"""Names in a foreign OME-Zarr plate, and what they are here: wells, numbers of fields, keys of channels."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cellvim.ingest.readers.ome_zarr.lenient import clean
from cellvim.ingest.readers.ome_zarr.metadata import PlateMetadata, WellImage
from cellvim.ingest.sources import natural, some
from cellvim.store import parse_well, safe_name, well_name

ChannelKeys = Literal["index", "label"]
_MOST_DIGITS = 9


def well_names(plate: PlateMetadata) -> tuple[dict[str, str], list[str]]:
    """Spell every well of the plate as ``B03``: path in the plate to well, and notes.

    The path says it. Rows that are numbers, as some microscopes' own formats have them, are counted from the
    lowest of the two numberings in use, 0 and 1.

    Raises:
        InputError: A path names no well.
    """
    paths = {path: path.strip("/").split("/")[-2:] for path in plate.wells}
    are_numbers = all(len(parts) == 2 and all(map(_is_number, parts)) for parts in paths.values())
    if not are_numbers:
        # Version 0.1 had plates with a folder above the rows: only the last two parts count.
        return {
            path: parse_well("".join(parts) if len(parts) == 2 else path) for path, parts in paths.items()
        }, []
    from_zero = [
        0 if any(int(name) == 0 for name in (*declared, *used) if _is_number(name)) else 1
        for declared, used in zip((plate.rows, plate.columns), zip(*paths.values(), strict=True), strict=True)
    ]
    wells = {
        path: well_name(int(row) + 1 - from_zero[0], int(column) + 1 - from_zero[1])
        for path, (row, column) in paths.items()
    }
    first = next(iter(wells.items()))
    return wells, [f"rows and columns are numbers: {clean(first[0])} is taken for well {first[1]}"]


def plate_name(own: str, folder: Path) -> str:
    """The plate's own name, or that of its folder.

    Raises:
        InputError: Neither can be used.
    """
    stem = folder.resolve().name.removesuffix(".zarr").removesuffix(".ome")
    return safe_name(own if any(letter.isascii() and letter.isalnum() for letter in own) else stem)


def number_fields(fields: Sequence[tuple[str, str]]) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Number the fields of every well.

    Names that are numbers keep them. Others get the next numbers in the order of all names on the plate, so that
    a name has one number in all wells; or in the order of the well, where no name is used in several wells.

    Args:
        fields: Well and name of each.

    Returns:
        Well and name to number, and notes.
    """
    names = sorted({name for _, name in fields}, key=lambda name: (natural(name), name))
    numeric = {name: int(name) for name in names if _is_number(name)}
    if len(set(numeric.values())) < len(numeric):
        # `1` and `01` would be one field.
        numeric = {}
    others = [name for name in names if name not in numeric]
    if not others:
        return {(well, name): numeric[name] for well, name in fields}, []
    first = max(numeric.values(), default=0) + 1
    wells: dict[str, list[str]] = defaultdict(list)
    for well, name in dict.fromkeys(fields):
        if name not in numeric:
            wells[well].append(name)
    uses = Counter(name for own in wells.values() for name in own)
    is_shared = len(wells) == 1 or max(uses.values()) > 1
    numbers = {}
    for well, own in wells.items():
        order = others if is_shared else [name for name in others if name in own]
        numbers.update({(well, name): first + order.index(name) for name in own})
    numbers.update({(well, name): numeric[name] for well, name in fields if name in numeric})
    examples = [f"{name} is {numbers[well, name]}" for well, name in fields if name in uses]
    note = f"fields whose names are no numbers are numbered in order: {some(list(dict.fromkeys(examples)))}"
    return numbers, [note]


def processed_copies(images: Sequence[WellImage]) -> list[WellImage]:
    """Images of one well that are made from others, such as ``0_registered`` beside ``0``."""
    raw = {(image.path, image.acquisition) for image in images if _is_number(image.path)}
    return [
        image
        for image in images
        if (image.path.partition("_")[0], image.acquisition) in raw
        and image.path.partition("_")[2].strip("_0123456789")
    ]


def key_channels(labels: Iterable[Sequence[str | None]]) -> ChannelKeys:
    """Say how channels are told apart: by their index, unless one index is one stain here and another there."""
    by_index: Mapping[int, set[str]] = defaultdict(set)
    for own in labels:
        for index, label in enumerate(own):
            if label is not None:
                by_index[index].add(label)
    return "label" if any(len(found) > 1 for found in by_index.values()) else "index"


def channel_names(labels: Sequence[str | None], by: ChannelKeys) -> tuple[str, ...]:
    """Key of every channel of a field."""
    if by == "index":
        return tuple(map(str, range(len(labels))))
    names = [label or str(index) for index, label in enumerate(labels)]
    return tuple(name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) <= _MOST_DIGITS
