"""Names that Yokogawa instruments give to images, for folders that have lost their index."""

import re
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.readers.cellvoyager.settings import describe
from cellvim.ingest.sources import Plane, Source
from cellvim.store import FieldKey, parse_well, well_name

# L numbers the timeline and A the action: both are settled by channel, field and time point.
_CELLVOYAGER = re.compile(
    r"(?P<plate>.+)_(?P<well>(?:A[A-F]|[A-Z])(?:0[1-9]|[1-3]\d|4[0-8]))_T(?P<t>\d{1,6})F(?P<site>\d{1,6})"
    r"L(?P<line>\d{1,4})A(?P<action>\d{1,4})Z(?P<z>\d{1,6})C(?P<channel>\d{1,4})\.tiff?",
    re.IGNORECASE,
)
_CQ1 = re.compile(
    r"W(?P<number>\d{4})F(?P<site>\d{1,6})T(?P<t>\d{1,6})Z(?P<z>\d{1,6})C(?P<channel>\d{1,4})\.tiff?",
    re.IGNORECASE,
)
# Dark and shading images that the instrument corrects with.
_CORRECTION = re.compile(r"(?:DC|SC)_.*\.tiff?", re.IGNORECASE)
_CQ1_FOLDERS = frozenset({"image", "projection"})


def is_named(path: Path) -> bool:
    """Whether an image's name says where on the plate it belongs."""
    return (_CELLVOYAGER.fullmatch(path.name) or _CQ1.fullmatch(path.name)) is not None


def named_otherwise(name: str, key: FieldKey, channel: int) -> bool:
    """Whether an image's name says another field or channel than its index does."""
    match = _CELLVOYAGER.fullmatch(name) or _CQ1.fullmatch(name)
    if match is None:
        return False
    well = match.groupdict().get("well")
    return (int(match["site"]), int(match["channel"])) != (key.site, channel) or (
        well is not None and well.upper() != key.well
    )


def is_correction(path: Path) -> bool:
    return _CORRECTION.fullmatch(path.name) is not None


def read_names(source: Source) -> dict[tuple[Path, str], list[Plane]]:
    """List the planes by plate: its folder, and the name that its files begin with.

    Raises:
        InputError: The names number the wells, and nothing says how many columns the plate has.
    """
    plates: dict[tuple[Path, str], list[Plane]] = {}
    columns: dict[Path, int] = {}
    for path in source.files():
        if match := _CELLVOYAGER.fullmatch(path.name):
            root, name, well = path.parent, match["plate"], parse_well(match["well"])
        elif match := _CQ1.fullmatch(path.name):
            root, name = _cq1_root(path, source.folder), ""
            if root not in columns:
                columns[root] = _columns(root, source, path)
            well = _numbered_well(int(match["number"]), columns[root], path)
        else:
            continue
        z = int(match["z"])
        # Planes count from 1: number 0 is the instrument's projection.
        plane = Plane(
            path,
            FieldKey(well, int(match["site"])),
            str(int(match["channel"])),
            z=z or None,
            t=int(match["t"]),
            is_projection=z == 0,
        )
        plates.setdefault((root, name), []).append(plane)
    return dict(sorted(plates.items()))


def _cq1_root(path: Path, folder: Path) -> Path:
    is_inner = path.parent != folder and path.parent.name.lower() in _CQ1_FOLDERS
    return path.parent.parent if is_inner else path.parent


def _columns(root: Path, source: Source, path: Path) -> int:
    count = describe(root, source).detail.columns
    if not count:
        found = (
            f"{path} numbers its well, and without a MeasurementDetail.mrf beside it "
            "nothing says how many columns the plate has"
        )
        raise InputError(found, hint="copy MeasurementData.mlf and MeasurementDetail.mrf from the instrument")
    return count


def _numbered_well(number: int, columns: int, path: Path) -> str:
    """Wells are numbered from 1, row by row."""
    try:
        return well_name((number - 1) // columns + 1, (number - 1) % columns + 1)
    except InputError as error:
        found = f"{path} lies in well {number} of a plate of {columns} columns: {error.found}"
        raise InputError(found, hint="check MeasurementDetail.mrf") from error
