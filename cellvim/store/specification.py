"""OME-Zarr 0.5 for plates, sentence by sentence: what the metadata of a plate must say, whoever wrote them.

Each rule is one sentence of the specification, takes what the metadata hold, and yields what breaks it.

Source:
    OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/, sections 2.7 and 2.8; images in `specification_images`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cellvim.store.layout import VERSION
from cellvim.store.place import Place
from cellvim.store.specification_images import Entry, array_paths, check_image, entries, is_whole, shown

_ALPHANUMERIC = re.compile(r"[A-Za-z0-9]+")
_AT_ONCE = 16


@dataclass(frozen=True)
class Conformity:
    """What was found in a plate's metadata.

    Attributes:
        problems: One line each, naming the group; empty if all is as the specification says.
        fields: Path of every field in the plate, such as ``B/03/1``.
        arrays: Path of every array of every field.
    """

    problems: tuple[str, ...]
    fields: tuple[str, ...]
    arrays: tuple[str, ...]


def check_metadata(place: Place) -> Conformity:
    """Hold the metadata of a plate against the specification: plate, rows, wells, fields and arrays.

    Raises:
        DiskError: The place cannot be reached.
    """
    plate_ome, problems = read_group(place, "")
    plate = _mapping(plate_ome.get("plate"))
    if not problems:
        problems += _broken("plate", plate_ome, [_has_version, _has_plate])
        problems += _broken("plate", plate, PLATE_RULES)
    wells = [well["path"] for well in entries(plate.get("wells")) if _is_path(well.get("path"), parts=2)]
    fields: list[str] = []
    numbers = {entry["id"] for entry in entries(plate.get("acquisitions")) if is_whole(entry.get("id"))}
    for row in dict.fromkeys(path.partition("/")[0] for path in wells):
        problems += read_group(place, row)[1]
    for path, (well_ome, lost) in zip(wells, _read_groups(place, wells), strict=True):
        well = _mapping(well_ome.get("well"))
        problems += lost
        if not lost:
            problems += _broken(path, well_ome, [_has_same_version])
            problems += _broken(path, well, [*WELL_RULES, lambda well: _acquisitions_exist(well, numbers)])
        images = [image.get("path") for image in entries(well.get("images"))]
        fields += [f"{path}/{image}" for image in images if _is_path(image, parts=1)]
    arrays: list[str] = []
    for path, (field_ome, lost) in zip(fields, _read_groups(place, fields), strict=True):
        problems += lost or [
            *_broken(path, field_ome, [_has_same_version]),
            *(f"{path}: {line}" for line in check_image(place.at(path), field_ome)),
        ]
        arrays += [f"{path}/{name}" for name in array_paths(field_ome)]
    return Conformity(tuple(dict.fromkeys(problems)), tuple(fields), tuple(arrays))


def read_group(place: Place, path: str) -> tuple[Entry, list[str]]:
    """OME metadata of a group of zarr 3, and what is wrong with it as a group."""
    name = f"{path}/zarr.json".lstrip("/")
    where = path or "plate"
    try:
        content = json.loads(place.read(name))
    except OSError as error:
        return {}, [f"{where}: {name} cannot be read: {error.strerror or error}"]
    except (ValueError, RecursionError):
        return {}, [f"{where}: {name} is damaged JSON"]
    group = _mapping(content)
    if group.get("zarr_format") != 3 or group.get("node_type") != "group":
        return {}, [f"{where}: {name} describes no group of zarr 3"]
    return _mapping(_mapping(group.get("attributes")).get("ome")), []


def _read_groups(place: Place, paths: Sequence[str]) -> list[tuple[Entry, list[str]]]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda path: read_group(place, path), paths))


def _broken(where: str, content: Entry, rules: Sequence[Callable[[Entry], Iterator[str]]]) -> list[str]:
    return [f"{where}: {line}" for rule in rules for line in rule(content)]


def _has_version(ome: Entry) -> Iterator[str]:
    """The version is denoted as a string in the `version` attribute within the `ome` namespace."""
    if ome.get("version") != VERSION:
        yield f"ome.version is {shown(ome.get('version'))}, expected {VERSION!r}"


def _has_same_version(ome: Entry) -> Iterator[str]:
    """The version MUST be consistent within a hierarchy; writers often leave it out below the plate."""
    if ome.get("version", VERSION) != VERSION:
        yield f"ome.version is {shown(ome.get('version'))}, the plate's is {VERSION!r}"


def _has_plate(ome: Entry) -> Iterator[str]:
    """The plate's group MUST implement the plate specification."""
    if not isinstance(ome.get("plate"), dict):
        yield "has no `plate` metadata"


def _plate_version_agrees(plate: Entry) -> Iterator[str]:
    """`plate.version` is that of the specification; its text demands it, its schema and examples do not."""
    if plate.get("version", VERSION) != VERSION:
        yield f"plate.version is {shown(plate['version'])}, expected {VERSION!r}"


def _name_is_a_string(plate: Entry) -> Iterator[str]:
    """`name` MUST be a string."""
    if not isinstance(plate.get("name", ""), str):
        yield f"plate.name is {shown(plate['name'])}, expected a string"


def _field_count_is_positive(plate: Entry) -> Iterator[str]:
    """`field_count` MUST be a positive integer."""
    if not is_whole(plate.get("field_count", 1), least=1):
        yield f"plate.field_count is {shown(plate['field_count'])}, expected a positive whole number"


def _names_lines(kind: str) -> Callable[[Entry], Iterator[str]]:
    def rule(plate: Entry) -> Iterator[str]:
        """MUST be a list of objects with a `name` that MUST contain only alphanumeric characters, once each."""
        names = _names(plate, kind)
        if not isinstance(plate.get(kind), list) or not names:
            yield f"plate.{kind} names none"
        for name in names:
            if not isinstance(name, str) or not _ALPHANUMERIC.fullmatch(name):
                yield f"plate.{kind} names {shown(name)}, expected letters and digits alone"
        for name in _twice(names):
            yield f"plate.{kind} names {shown(name)} twice"

    return rule


def _acquisitions_are_numbered(plate: Entry) -> Iterator[str]:
    """Each acquisition MUST contain an `id`, a unique integer greater than or equal to 0."""
    numbers = [entry.get("id") for entry in entries(plate.get("acquisitions"))]
    for number in numbers:
        if not is_whole(number):
            yield f"an acquisition has the id {shown(number)}, expected a whole number from 0"
    for number in _twice(numbers):
        yield f"two acquisitions have the id {shown(number)}"


def _acquisitions_count_and_date(plate: Entry) -> Iterator[str]:
    """`maximumfieldcount` MUST be positive, `starttime` and `endtime` integer epoch timestamps, names strings."""
    for entry in entries(plate.get("acquisitions")):
        for key, least in (("maximumfieldcount", 1), ("starttime", 0), ("endtime", 0)):
            if key in entry and not is_whole(entry[key], least=least):
                yield f"an acquisition has {key} {shown(entry[key])}, expected a whole number from {least}"
        for key in ("name", "description"):
            if not isinstance(entry.get(key, ""), str):
                yield f"an acquisition has {key} {shown(entry[key])}, expected a string"


def _wells_are_there(plate: Entry) -> Iterator[str]:
    """`wells` MUST be a list of objects."""
    wells = plate.get("wells")
    if not isinstance(wells, list) or not wells or len(entries(wells)) < len(wells):
        yield "plate.wells names none, or something that is no well"
    for path in _twice([well.get("path") for well in entries(wells)]):
        yield f"plate.wells names {shown(path)} twice"


def _wells_lie_in_rows_and_columns(plate: Entry) -> Iterator[str]:
    """`path` MUST be a name of the rows, a slash, and a name of the columns; the indices MUST be those of the two."""
    rows, columns = (
        {name: index for index, name in enumerate(_names(plate, kind)) if isinstance(name, str)}
        for kind in ("rows", "columns")
    )
    for well in entries(plate.get("wells")):
        path = well.get("path")
        if path is None or not _is_path(path, parts=2):
            yield f"a well has the path {shown(path)}, expected ROW/COLUMN"
            continue
        row, column = path.split("/")
        if row not in rows or column not in columns:
            yield f"well {path} lies in no row and column that the plate names"
            continue
        expected = (rows[row], columns[column])
        found = (well.get("rowIndex"), well.get("columnIndex"))
        if found != expected or not all(map(is_whole, found)):
            yield f"well {path} has rowIndex and columnIndex {shown(found)}, expected {expected}"


def _images_are_named(well: Entry) -> Iterator[str]:
    """`images` MUST be a list of objects with a `path` of only alphanumeric characters, once each."""
    images = well.get("images")
    if not isinstance(images, list) or not images or len(entries(images)) < len(images):
        yield "well.images names none, or something that is no image"
    paths = [image.get("path") for image in entries(images)]
    for path in paths:
        if not isinstance(path, str) or not _ALPHANUMERIC.fullmatch(path):
            yield f"well.images names {shown(path)}, expected letters and digits alone"
    for path in _twice(paths):
        yield f"well.images names {shown(path)} twice"


def _acquisitions_exist(well: Entry, numbers: set[Any]) -> Iterator[str]:
    """`acquisition` MUST match one of the plate's, and MUST be there if there are several."""
    for image in entries(well.get("images")):
        number = image.get("acquisition")
        if number is None and len(numbers) < 2:
            continue
        if not is_whole(number) or (numbers and number not in numbers):
            yield f"image {shown(image.get('path'))} is of acquisition {shown(number)}, which the plate does not name"


PLATE_RULES = (
    _plate_version_agrees,
    _name_is_a_string,
    _field_count_is_positive,
    _names_lines("rows"),
    _names_lines("columns"),
    _acquisitions_are_numbered,
    _acquisitions_count_and_date,
    _wells_are_there,
    _wells_lie_in_rows_and_columns,
)
WELL_RULES = (_images_are_named,)


def _names(plate: Entry, kind: str) -> list[Any]:
    return [entry.get("name") for entry in entries(plate.get(kind))]


def _twice(values: Sequence[Any]) -> list[Any]:
    uses = Counter(map(ascii, values))
    return list({ascii(value): value for value in values if uses[ascii(value)] > 1}.values())


def _is_path(path: Any, *, parts: int) -> bool:
    """A path that stays below its group, whatever characters it is made of."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path:
        return False
    names = path.split("/")
    return len(names) == parts and all(name and not name.startswith(".") for name in names)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
