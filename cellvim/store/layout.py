"""Where everything lies in PLATE.ome.zarr and in PLATE.cellvim beside it, and what the metadata say.

Source:
    OME-Zarr 0.5, https://ngff.openmicroscopy.org/0.5/
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from cellvim.store.naming import FieldKey, row_number, split_well
from cellvim.store.place import Place

PLATE_SUFFIX = ".ome.zarr"
COMPANION_SUFFIX = ".cellvim"
VERSION = "0.5"
INNER_CHUNK_PX = 256
# The one file that holds a field's pixels, inside its array.
SHARD = "c/0/0/0"
# Files that systems leave anywhere, such as .DS_Store, are none.
RECORD_FILE = re.compile(r"fields/([A-Z]{1,2}\d\d)-(\d+)\.(?:json|histogram)")
# In a plate: any file of a field, and the metadata of a row or a well.
FIELD_FILE = re.compile(r"(A[A-F]|[A-Z])/(\d\d)/(\d+)/")
WELL_FILE = re.compile(r"(?:A[A-F]|[A-Z])(?:/\d\d)?/zarr\.json")

# Blue, green, red, yellow, magenta, cyan, then grey: channels 1-3 of most screens look as expected.
_COLORS = ("0000FF", "00FF00", "FF0000", "FFFF00", "FF00FF", "00FFFF")


def companion_of(plate: Place) -> Place:
    """Folder beside the plate that holds everything OME-Zarr has no place for."""
    return plate.at(f"../{plate.name.removesuffix(PLATE_SUFFIX)}{COMPANION_SUFFIX}")


def record_name(field: FieldKey) -> str:
    """Done-record of a field, in the companion: there if and only if the field is whole."""
    return f"fields/{field.well}-{field.site}.json"


def histogram_name(field: FieldKey) -> str:
    return f"fields/{field.well}-{field.site}.histogram"


def group(attributes: dict[str, Any]) -> dict[str, Any]:
    """Content of `zarr.json` for a zarr v3 group with OME metadata; empty for a plain group."""
    ome = {"ome": {"version": VERSION, **attributes}} if attributes else {}
    return {"attributes": ome, "node_type": "group", "zarr_format": 3}


def plate_groups(name: str, fields: Sequence[FieldKey]) -> dict[str, dict[str, Any]]:
    """OME metadata of every group above the fields: path inside the plate (``""`` is the plate) to content."""
    groups: dict[str, dict[str, Any]] = {"": plate_metadata(name, fields)}
    for well, members in groupby(fields, key=lambda key: key.well):
        row, column = split_well(well)
        groups[row] = {}
        groups[f"{row}/{column}"] = well_metadata([key.site for key in members])
    return groups


def plate_metadata(name: str, fields: Sequence[FieldKey]) -> dict[str, Any]:
    """Describe the plate: rows and columns in use, wells, and the largest number of fields in one."""
    wells = list(dict.fromkeys(field.well for field in fields))
    rows = sorted({split_well(well)[0] for well in wells}, key=row_number)
    columns = sorted({split_well(well)[1] for well in wells})
    most = max(len(list(members)) for _, members in groupby(fields, key=lambda field: field.well))
    return {
        "plate": {
            "acquisitions": [{"id": 0, "maximumfieldcount": most, "name": "ingest"}],
            "columns": [{"name": column} for column in columns],
            "field_count": most,
            "name": name,
            "rows": [{"name": row} for row in rows],
            # Said once more here, since ome-zarr-models looks for it in the plate itself.
            "version": VERSION,
            "wells": [
                {
                    "path": "/".join(split_well(well)),
                    "rowIndex": rows.index(split_well(well)[0]),
                    "columnIndex": columns.index(split_well(well)[1]),
                }
                for well in wells
            ],
        }
    }


def well_metadata(sites: Sequence[int]) -> dict[str, Any]:
    return {"well": {"images": [{"acquisition": 0, "path": str(site)} for site in sites]}}


def image_metadata(
    name: str,
    channels: Sequence[str],
    *,
    pixel_size_um: float | None,
    windows: Sequence[tuple[float, float]],
    largest: int,
) -> dict[str, Any]:
    """Describe one field.

    Args:
        name: For example ``B03/1``.
        channels: Stain names, in the order of the array.
        pixel_size_um: Side of a pixel; unknown if None, and then the axes carry no unit.
        windows: Display range of each channel, raw units.
        largest: Largest value the data type can hold.
    """
    space = {"type": "space"} if pixel_size_um is None else {"type": "space", "unit": "micrometer"}
    scale = 1.0 if pixel_size_um is None else pixel_size_um
    return {
        "multiscales": [
            {
                "axes": [{"name": "c", "type": "channel"}, {"name": "y", **space}, {"name": "x", **space}],
                "datasets": [
                    {
                        "coordinateTransformations": [{"scale": [1.0, scale, scale], "type": "scale"}],
                        "path": "0",
                    }
                ],
                "name": name,
            }
        ],
        "omero": {
            "channels": [
                {
                    "active": True,
                    "color": _COLORS[number] if number < len(_COLORS) else "FFFFFF",
                    "label": channel,
                    "window": {"end": end, "max": largest, "min": 0, "start": start},
                }
                for number, (channel, (start, end)) in enumerate(zip(channels, windows, strict=True))
            ]
        },
    }


def inner_chunk_px(side: int) -> int:
    """Side of the inner chunks along one axis: near 256, and a divisor of `side` where one is near enough.

    A divisor makes the shard exactly the field. Without one the shard reaches past the field's edge, which
    zarr allows; nothing is stored for what lies outside.
    """
    counts = range(-(-side // 384), max(1, side // 192) + 1)
    exact = [side // count for count in counts if side % count == 0]
    if exact:
        return min(exact, key=lambda chunk: abs(chunk - INNER_CHUNK_PX))
    return -(-side // max(1, round(side / INNER_CHUNK_PX)))
