"""OME-Zarr plates as other programs write them, from real pixels: written by zarr-python and by hand."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader

OME_AXES = {
    "t": {"name": "t", "type": "time"},
    "c": {"name": "c", "type": "channel"},
    "z": {"name": "z", "type": "space", "unit": "micrometer"},
    "y": {"name": "y", "type": "space", "unit": "micrometer"},
    "x": {"name": "x", "type": "space", "unit": "micrometer"},
}


@dataclass(frozen=True)
class Style:
    """How one program writes plates.

    Attributes:
        axes: For example ``czyx``.
        array: For `zarr.create_array`.
        named_axes: ``dict`` as since 0.4, ``str`` as in 0.3, None as before.
    """

    version: str = "0.4"
    zarr_format: int = 2
    axes: str = "czyx"
    chunk: int = 64
    dtype: str = "<u2"
    array: Mapping[str, Any] = field(default_factory=dict)
    named_axes: type | None = dict
    dataset: str = "0"
    has_pyramid: bool = False


NESTED = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
FLAT = {"chunk_key_encoding": {"name": "v2", "separator": "."}}


def styles() -> dict[str, Style]:
    from numcodecs import Blosc, Zlib
    from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

    lz4 = {"compressors": Blosc(cname="lz4", clevel=5, shuffle=1)}
    return {
        "fractal": Style(array=NESTED | lz4, has_pyramid=True),
        "iohub": Style(
            axes="tczyx", array=NESTED | {"compressors": Blosc(cname="zstd", clevel=1, shuffle=2)}
        ),
        "bioformats2raw": Style(axes="tczyx", dtype=">u2", array=NESTED | lz4),
        "ome-zarr-py 0.1": Style("0.1", axes="tczyx", array=FLAT | lz4, named_axes=None),
        "0.3": Style("0.3", axes="tcyx", array=NESTED | {"compressors": Zlib()}, named_axes=str),
        "plain": Style(axes="yx", array=FLAT | {"compressors": None, "order": "F"}),
        "scale0/image": Style(axes="zcyx", dataset="scale0/image", array=NESTED),
        "0.5": Style("0.5", 3, axes="tczyx", array={"compressors": [BloscCodec()]}),
        "0.5 gzip": Style("0.5", 3, array={"compressors": [GzipCodec()]} | FLAT),
        "0.5 sharded": Style(
            "0.5", 3, chunk=32, array={"shards": True, "compressors": [ZstdCodec(checksum=True)]}
        ),
        "0.5 blosc shards": Style(
            "0.5", 3, axes="cyx", chunk=32, array={"shards": True, "compressors": [BloscCodec()]}
        ),
    }


def write_plate(
    folder: Path,
    fields: Mapping[str, np.ndarray],
    style: Style,
    *,
    labels: tuple[str, ...] = (),
    **plate: Any,
) -> Path:
    """Write a plate: path of each field, such as ``B/03/0``, to pixels with axes (t, c, z, y, x)."""
    wells = list(dict.fromkeys(path.rpartition("/")[0] for path in fields))
    rows, columns = (sorted({well.split("/")[-2:][part] for well in wells}) for part in (0, 1))
    content = {
        "name": "Screen 1",
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {
                "path": well,
                "rowIndex": rows.index(well.split("/")[-2]),
                "columnIndex": columns.index(well.split("/")[-1]),
            }
            for well in wells
        ],
        "version": style.version,
    } | plate
    write_group(folder, {"plate": content}, style)
    for well in wells:
        write_group(folder / well.rpartition("/")[0], {}, style)
        images = [{"path": path.rpartition("/")[2]} for path in fields if path.startswith(f"{well}/")]
        write_group(folder / well, {"well": {"images": images, "version": style.version}}, style)
    for path, pixels in fields.items():
        write_image(folder / path, pixels, style, labels)
    return folder


def write_image(group: Path, pixels: np.ndarray, style: Style, labels: tuple[str, ...] = ()) -> None:
    """Write a field; axes that the style has not must be of length 1."""
    write_group(group, image_attributes(style, labels), style)
    dropped = tuple(index for index, axis in enumerate("tczyx") if axis not in style.axes)
    whole = pixels.squeeze(dropped)
    here = [axis for axis in "tczyx" if axis in style.axes]
    whole = whole.transpose([here.index(axis) for axis in style.axes])
    write_array(group / style.dataset, whole, style)
    if style.has_pyramid:
        write_array(group / "1", whole[..., ::2, ::2], style)


def image_attributes(style: Style, labels: tuple[str, ...]) -> dict[str, Any]:
    datasets = [{"path": style.dataset}] + [{"path": "1"}] * style.has_pyramid
    multiscale: dict[str, Any] = {"name": "field", "version": style.version, "datasets": datasets}
    if style.named_axes is str:
        multiscale["axes"] = list(style.axes)
    if style.named_axes is dict:
        multiscale["axes"] = [dict(OME_AXES[axis]) for axis in style.axes]
        for level, dataset in enumerate(datasets):
            scale = [1.0] * (len(style.axes) - 2) + [0.5 * 2**level] * 2
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
        scale = [1.0] * (len(style.axes) - 2) + [0.65, 0.65]
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    channels = [{"label": label, "wavelength_id": f"A01_C{index:02d}"} for index, label in enumerate(labels)]
    return {"multiscales": [multiscale]} | ({"omero": {"channels": channels}} if labels else {})


def write_array(path: Path, pixels: np.ndarray, style: Style) -> None:
    chunks = (1,) * (pixels.ndim - 2) + (style.chunk,) * 2
    options = {
        "write_empty_chunks": True,
        **({"order": style.array["order"]} if "order" in style.array else {}),
    }
    settings = {name: value for name, value in style.array.items() if name not in ("order", "shards")}
    if style.array.get("shards"):
        settings["shards"] = (*pixels.shape[:-2], 4 * style.chunk, 4 * style.chunk)
    dtype = style.dtype if pixels.dtype == np.uint16 else pixels.dtype
    array = zarr.create_array(
        str(path),
        shape=pixels.shape,
        chunks=chunks,
        dtype=dtype,
        zarr_format=style.zarr_format,
        fill_value=0,
        config=options,
        overwrite=True,
        **settings,
    )
    array[...] = pixels


def write_group(folder: Path, attributes: Mapping[str, Any], style: Style) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if style.zarr_format == 2:
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(attributes))
        return
    ome = {"ome": {"version": style.version, **attributes}} if attributes else {}
    group = {"zarr_format": 3, "node_type": "group", "attributes": ome}
    (folder / "zarr.json").write_text(json.dumps(group))


def ingest_one(folder: Path, **changes: Any) -> PlateReader:
    """Ingest a source that holds one plate, beside it."""
    settings = IngestSettings(**{"sources": (folder,), "out": folder.parent / "out"} | changes)
    (plate,) = ingest_plates(settings).plates
    return PlateReader(plate.path)


def foresee(folder: Path, **changes: Any) -> Any:
    """What ingest would make of the one plate of a source."""
    settings = IngestSettings(sources=(folder,), out=folder.parent / "out", dry_run=True, **changes)
    (plate,) = ingest_plates(settings).plates
    return plate


def chunks_of(folder: Path) -> list[Path]:
    """Every file that is no metadata."""
    names = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in names)


def name_images(well: Path, images: list[dict[str, Any]]) -> None:
    """Let a well of version 0.4 name other images."""
    (well / ".zattrs").write_text(json.dumps({"well": {"images": images}}))


def random_5d(*sizes: int, seed: int = 0) -> np.ndarray:
    """Axes (t, c, z, y, x), no zeros."""
    return np.random.default_rng(seed).integers(1, 60000, (*sizes, 40, 50)).astype(np.uint16)
