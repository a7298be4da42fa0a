"""Images that Harmony named, without their index: ``r01c01f01p01-ch1sk1fk1fl1.tiff``.

Names tell row, column, field, plane, channel and time point. They do not tell stains, nor the size of a pixel: the
resolution tags of these TIFFs are those of the camera, without the objective.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.readers.operetta.folders import home_of, plate_of
from cellvim.ingest.sources import Plane, SourcePlate, some
from cellvim.store import FieldKey, well_name

# The oldest Harmony numbers channels by `rc`, with `ch1` throughout; archives write `-ch01t01` for `-ch1sk1fk1fl1`.
_NAME = re.compile(
    r"r(?P<row>\d{1,2})c(?P<column>\d{1,2})f(?P<site>\d{1,5})p(?P<z>\d{1,5})(?:rc(?P<record>\d{1,3}))?"
    r"-ch(?P<channel>\d{1,3})(?:sk(?P<t>\d{1,6})fk\d{1,6}fl\d{1,6}|t(?P<archive_t>\d{1,6}))\.tiff?",
    re.IGNORECASE | re.ASCII,
)
_WELL_FOLDER = re.compile(r"r\d{1,2}c\d{1,2}", re.IGNORECASE | re.ASCII)


def plane_of(path: Path) -> Plane | None:
    """The plane that a file's name stands for; None if it is no name of Harmony's."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        well = well_name(int(match["row"]), int(match["column"]))
    except InputError:
        return None
    return Plane(
        path,
        FieldKey(well, int(match["site"])),
        str(int(match["record"] or match["channel"])),
        z=int(match["z"]),
        t=int(match["t"] or match["archive_t"]),
    )


def plates_of(images: Iterable[Path], folder: Path) -> list[tuple[Path, SourcePlate]]:
    """Plates that the names alone tell, each with the folder of its measurement.

    Args:
        images: Images that no index names.
        folder: The source.
    """
    planes: dict[Path, list[Plane]] = {}
    others: dict[Path, list[str]] = {}
    for path in images:
        place = path.parent.parent if _WELL_FOLDER.fullmatch(path.parent.name) else path.parent
        plane = plane_of(path)
        if plane is None:
            others.setdefault(place, []).append(path.name)
        else:
            planes.setdefault(place, []).append(plane)
    return [
        (home_of(place), _plate(place, found, others.get(place, []), folder))
        for place, found in planes.items()
    ]


def _plate(place: Path, planes: list[Plane], others: list[str], folder: Path) -> SourcePlate:
    name = plate_of(home_of(place))
    return SourcePlate(
        name=name,
        folder=folder,
        evidence=f"Operetta: no index, names such as {planes[0].path.name}",
        planes=tuple(planes),
        stains={plane.channel: f"ch{plane.channel}" for plane in planes},
        notes=(f"{len(others)} images have other names: {some(others)}",) if others else (),
        barcode=name,
    )
