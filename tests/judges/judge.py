"""Let one foreign reader of OME-Zarr look at plates. Run by the interpreter of `.venv-judges`.

    python judge.py JUDGE JOBS.json

JOBS.json lists plates: ``{"plate": path, "sources": {group: [[image, ...] per channel]}}``; only `tensorstore` looks
at the sources, the vendor's own files. Prints one JSON object per plate: what the judge saw, or why it refused.
"""

import contextlib
import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Seen = dict[str, Any]
Sources = dict[str, list[list[str]]]


def main() -> None:
    name, jobs = sys.argv[1:]
    for job in json.loads(Path(jobs).read_text()):
        try:
            seen = JUDGES[name](Path(job["plate"]), job["sources"])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a judge raises is its verdict
            seen = {"refused": f"{type(error).__name__}: {str(error)[:300]}"}
        sys.stdout.write(json.dumps(seen) + "\n")


def validate_with_ome_zarr_models(plate: Path, _: Sources) -> Seen:
    """Do what its command `validate` does, without a process for every plate."""
    from ome_zarr_models import open_ome_zarr
    from ome_zarr_models.exceptions import ValidationWarning

    with warnings.catch_warnings(action="error", category=ValidationWarning):
        return {"kind": type(open_ome_zarr(plate)).__name__}


def validate_with_ngff_zarr(plate: Path, _: Sources) -> Seen:
    """Validate the metadata of every group; tell how many have some."""
    import ngff_zarr

    count = 0
    for path in sorted(plate.rglob("zarr.json")):
        attributes = json.loads(path.read_text())["attributes"]
        for model, key in (("plate", "plate"), ("well", "well"), ("image", "multiscales")):
            if key in attributes.get("ome", {}):
                ngff_zarr.validate(attributes, version="0.5", model=model)
                count += 1
    return {"groups": count}


def open_with_iohub(plate: Path, _: Sources) -> Seen:
    from iohub import open_ome_zarr

    with open_ome_zarr(plate, mode="r") as opened:
        positions = dict(opened.positions())
        return {
            "channels": list(opened.channel_names),
            "scales": {name: list(position.scale) for name, position in positions.items()},
            "fields": {name: checksum(position["0"][:]) for name, position in positions.items()},
        }


def open_with_zarr(plate: Path, _: Sources) -> Seen:
    """Walk down by the metadata alone, as a reader that knows zarr and no library for OME-Zarr would."""
    import zarr

    root = zarr.open_group(plate, mode="r")
    fields = {}
    for well in root.attrs["ome"]["plate"]["wells"]:
        for image in root[well["path"]].attrs["ome"]["well"]["images"]:
            group = root[f"{well['path']}/{image['path']}"]
            (level,) = group.attrs["ome"]["multiscales"][0]["datasets"]
            array = group[level["path"]]
            # A missing shard would read as zeros.
            assert array.nchunks_initialized == array.nchunks
            fields[group.path] = checksum(array[:])
    return {"fields": fields}


def open_with_ome_zarr(plate: Path, _: Sources) -> Seen:
    """Read the plate as one picture and field by field, and keep what `ome_zarr info` prints."""
    from ome_zarr import cli
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.main(["info", str(plate)])
    (whole,) = Reader(parse_url(plate))()
    fields = {}
    for group in field_groups(plate):
        (image,) = Reader(parse_url(plate / group))()
        fields[group] = checksum(image.data[0])
    return {
        "channels": whole.metadata["channel_names"],
        "windows": whole.metadata["contrast_limits"],
        "picture": checksum(whole.data[0]),
        "fields": fields,
        "info": printed.getvalue(),
    }


def open_with_napari_ome_zarr(plate: Path, _: Sources) -> Seen:
    """Call the reader that napari calls; only the window is missing."""
    from napari_ome_zarr import napari_get_reader

    def read(path: Path) -> tuple[Any, Seen]:
        with contextlib.redirect_stdout(io.StringIO()):
            ((data, metadata, kind),) = napari_get_reader(str(path))(str(path))
        assert kind == "image"
        assert metadata["channel_axis"] == 0
        return data[0], metadata

    picture, metadata = read(plate)
    return {
        "channels": [name.partition(": ")[2] for name in metadata["name"]],
        "windows": metadata["contrast_limits"],
        "scale": list(metadata["scale"]),
        "picture": checksum(picture),
        "fields": {group: checksum(read(plate / group)[0]) for group in field_groups(plate)},
    }


def compare_by_tensorstore(plate: Path, sources: Sources) -> Seen:
    """Compare tensorstore's pixels with what tifffile reads from the vendor's files; z planes are projected."""
    import tensorstore
    import tifffile

    different = []
    for group, channels in sources.items():
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(plate / group / "0")}}
        stored = tensorstore.open(spec, read=True).result().read().result()
        expected = np.stack(
            [np.maximum.reduce([tifffile.imread(file) for file in files]) for files in channels]
        )
        if stored.dtype != expected.dtype or not np.array_equal(stored, expected):
            different.append(group)
    return {"compared": sorted(sources), "different": different}


def field_groups(plate: Path) -> list[str]:
    """Paths of all images, by the metadata of plate and wells."""

    def ome(group: Path) -> Seen:
        content: Seen = json.loads((group / "zarr.json").read_text())["attributes"]["ome"]
        return content

    return [
        f"{well['path']}/{image['path']}"
        for well in ome(plate)["plate"]["wells"]
        for image in ome(plate / well["path"])["well"]["images"]
    ]


def checksum(pixels: Any) -> str:
    array = np.ascontiguousarray(pixels)
    return hashlib.sha256(f"{array.dtype} {array.squeeze().shape}".encode() + array.tobytes()).hexdigest()


JUDGES: dict[str, Callable[[Path, Sources], Seen]] = {
    "ome-zarr-models": validate_with_ome_zarr_models,
    "ngff-zarr": validate_with_ngff_zarr,
    "iohub": open_with_iohub,
    "zarr": open_with_zarr,
    "ome-zarr": open_with_ome_zarr,
    "napari-ome-zarr": open_with_napari_ome_zarr,
    "tensorstore": compare_by_tensorstore,
}

if __name__ == "__main__":
    main()
