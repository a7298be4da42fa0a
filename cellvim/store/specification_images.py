"""OME-Zarr 0.5 for images, sentence by sentence: multiscales, their arrays, and how channels are shown.

Source:
    OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/, sections 2.1 to 2.5.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cellvim.store.place import Place

Entry = Mapping[str, Any]

_COLOUR = re.compile(r"[0-9A-Fa-f]{6}")
# Time first, then channels or something of another kind, then space.
_ORDER = {"time": 0, "space": 2}


def check_image(place: Place, ome: Entry) -> list[str]:
    """Hold one field against the specification.

    Args:
        place: The field's group.
        ome: Its metadata.

    Returns:
        What breaks it, one line each.
    """
    multiscales = entries(ome.get("multiscales"))
    if not multiscales:
        return ["has no `multiscales` metadata"]
    problems: list[str] = []
    for multiscale in multiscales:
        for rule in MULTISCALE_RULES:
            problems += rule(multiscale)
        arrays = [read_array(place, path) for path in _paths(multiscale)]
        problems += [line for _, lost in arrays for line in lost]
        whole = [array for array, lost in arrays if not lost]
        for array_rule in ARRAY_RULES:
            problems += array_rule(multiscale, whole)
        if whole and "omero" in ome:
            problems += _channels_match(ome, multiscale, whole[0])
    problems += _channels_can_be_shown(ome)
    return problems


def array_paths(ome: Entry) -> list[str]:
    """Paths of all arrays of a field that stay inside of it."""
    return [path for multiscale in entries(ome.get("multiscales")) for path in _paths(multiscale)]


def read_array(place: Place, path: str) -> tuple[Entry, list[str]]:
    """Metadata of an array of zarr 3, and what is wrong with them as such."""
    try:
        content = json.loads(place.read(f"{path}/zarr.json"))
    except OSError as error:
        return {}, [f"array {path} has no metadata: {error.strerror or error}"]
    except (ValueError, RecursionError):
        return {}, [f"array {path}: its zarr.json is damaged JSON"]
    if (
        not isinstance(content, dict)
        or content.get("zarr_format") != 3
        or content.get("node_type") != "array"
    ):
        return {}, [f"array {path}: its zarr.json describes no array of zarr 3"]
    shape = content.get("shape")
    if not isinstance(shape, list) or not all(is_whole(side, least=1) for side in shape):
        return {}, [f"array {path} has the shape {shown(shape)}"]
    return {**content, "path": path}, []


def entries(value: Any) -> list[Entry]:
    """The objects in a list; none if it is no list."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def is_whole(value: Any, *, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def shown(value: Any) -> str:
    """A stranger's value on one short line."""
    return ascii(value)[:60]


def _axes_are_named(multiscale: Entry) -> Iterator[str]:
    """`axes` MUST be 2 to 5 dictionaries, each with a `name` that is unique."""
    axes = multiscale.get("axes")
    names = [axis.get("name") for axis in entries(axes)]
    if not isinstance(axes, list) or not 2 <= len(axes) <= 5 or len(names) < len(axes):
        yield f"axes are {shown(axes)}, expected 2 to 5 objects"
    if not all(isinstance(name, str) for name in names) or len(set(map(str, names))) < len(names):
        yield f"axes are named {shown(names)}, expected a name of its own for each"


def _axes_are_ordered(multiscale: Entry) -> Iterator[str]:
    """`axes` MUST contain 2 or 3 of space, MAY contain one of time and one of channels; in the order t, c, space."""
    kinds = [axis.get("type") for axis in entries(multiscale.get("axes"))]
    order = [_ORDER.get(kind, 1) if isinstance(kind, str) else 1 for kind in kinds]
    if order.count(2) not in (2, 3) or order.count(0) > 1 or order.count(1) > 1:
        yield f"axes are of the types {shown(kinds)}, expected 2 or 3 of space and at most one each of time and channel"
    elif order != sorted(order):
        yield f"axes are of the types {shown(kinds)}, expected time, channel, space in this order"


def _datasets_have_paths(multiscale: Entry) -> Iterator[str]:
    """`datasets` MUST be a list of dictionaries, each with the `path` of an array."""
    datasets = multiscale.get("datasets")
    if not isinstance(datasets, list) or not datasets or len(_paths(multiscale)) < len(datasets):
        yield f"datasets are {shown(datasets)}, expected objects with a path inside of the field"


def _datasets_are_scaled(multiscale: Entry) -> Iterator[str]:
    """Each of `datasets` MUST contain exactly one scale, MAY contain one translation behind it."""
    for dataset in entries(multiscale.get("datasets")):
        yield from _transformations(dataset, multiscale, f"dataset {shown(dataset.get('path'))}")


def _multiscale_is_scaled(multiscale: Entry) -> Iterator[str]:
    """`coordinateTransformations` of a multiscale MUST follow the same rules, where there are any."""
    if "coordinateTransformations" in multiscale:
        yield from _transformations(multiscale, multiscale, "the multiscale")


def _transformations(owner: Entry, multiscale: Entry, name: str) -> Iterator[str]:
    """Only scale and translation, in this order, one number per axis."""
    steps = entries(owner.get("coordinateTransformations"))
    kinds = [step.get("type") for step in steps]
    if kinds not in (["scale"], ["scale", "translation"]):
        yield f"{name} has the transformations {shown(kinds)}, expected one scale, and at most one translation after it"
    axes = len(entries(multiscale.get("axes")))
    for step in steps:
        kind = step.get("type")
        numbers = step.get(kind) if isinstance(kind, str) else None
        if kind in ("scale", "translation") and not _are_numbers(numbers, axes):
            yield f"{name} has the {kind} {shown(numbers)}, expected {axes} numbers"


def _arrays_have_the_axes(multiscale: Entry, arrays: Sequence[Entry]) -> Iterator[str]:
    """The length of `axes` MUST be the number of dimensions, and `dimension_names` MUST match their names."""
    names = [axis.get("name") for axis in entries(multiscale.get("axes"))]
    for array in arrays:
        if len(array["shape"]) != len(names):
            yield f"array {array['path']} has {len(array['shape'])} dimensions, {len(names)} axes are named"
        elif array.get("dimension_names") != names:
            found = shown(array.get("dimension_names"))
            yield f"array {array['path']} has the dimension_names {found}, the axes are {shown(names)}"


def _arrays_shrink(_multiscale: Entry, arrays: Sequence[Entry]) -> Iterator[str]:
    """`datasets` MUST be ordered from the highest resolution to the smallest."""
    sizes = [math.prod(array["shape"]) for array in arrays]
    if sizes != sorted(sizes, reverse=True):
        yield f"datasets are not ordered from large to small: {shown([array['shape'] for array in arrays])}"


def _arrays_agree(_multiscale: Entry, arrays: Sequence[Entry]) -> Iterator[str]:
    """All levels are of one data type."""
    found = sorted({shown(array.get("data_type")) for array in arrays})
    if len(found) > 1:
        yield f"levels differ in their data_type: {', '.join(found)}"


def _channels_match(ome: Entry, multiscale: Entry, array: Entry) -> Iterator[str]:
    """`omero.channels` is an array matching the size of the c dimension."""
    omero = ome["omero"] if isinstance(ome["omero"], dict) else {}
    channels = omero.get("channels")
    kinds = [axis.get("type") for axis in entries(multiscale.get("axes"))]
    is_there = "channel" in kinds and len(array["shape"]) == len(kinds)
    expected = array["shape"][kinds.index("channel")] if is_there else 1
    found = len(channels) if isinstance(channels, list) else 0
    if found != expected:
        yield f"omero names {found} channels, the array has {expected}"


def _channels_can_be_shown(ome: Entry) -> Iterator[str]:
    """Each channel has a colour of six hexadecimal digits and a window of four numbers."""
    omero = ome.get("omero")
    for number, channel in enumerate(entries(omero.get("channels")) if isinstance(omero, dict) else []):
        colour = channel.get("color", "FFFFFF")
        if not isinstance(colour, str) or not _COLOUR.fullmatch(colour):
            yield f"channel {number} has the color {shown(colour)}, expected six hexadecimal digits"
        if "window" not in channel:
            continue
        window = channel["window"] if isinstance(channel["window"], dict) else {}
        bounds = [window.get(key) for key in ("min", "start", "end", "max")]
        if not _are_numbers(bounds, 4):
            yield f"channel {number} has the window {shown(channel['window'])}, expected min, start, end and max"


MULTISCALE_RULES = (
    _axes_are_named,
    _axes_are_ordered,
    _datasets_have_paths,
    _datasets_are_scaled,
    _multiscale_is_scaled,
)
ARRAY_RULES = (_arrays_have_the_axes, _arrays_shrink, _arrays_agree)


def _paths(multiscale: Entry) -> list[str]:
    paths = [dataset.get("path") for dataset in entries(multiscale.get("datasets"))]
    return [path for path in paths if isinstance(path, str) and _stays_inside(path)]


def _stays_inside(path: str) -> bool:
    return path.isprintable() and all(part and not part.startswith(".") for part in path.split("/"))


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )
