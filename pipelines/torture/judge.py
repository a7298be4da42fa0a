"""Judge what an ingest left behind by its bytes alone: read by zarr, json and polars, never by cellvim."""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import zarr

from cellvim.ingest import IngestSummary
from pipelines.torture.attack import Attack
from pipelines.torture.mutators import description_of
from pipelines.torture.victim import Victim

# The five verdicts; anything but the last is fine.
REFUSED, SAME, RECORDED, TOLD, BROKEN = (
    "refused",
    "same pixels",
    "altered, recorded",
    "altered, told",
    "broken",
)


@dataclass(frozen=True)
class Output:
    """What an ingest left behind, read without cellvim.

    Attributes:
        files: Name to sha256 of every file of the store, and of the plate map.
        pixels: Sha256 of every plane of the store.
        recorded: Every sha256 that the manifest and `run.json` hold.
        told: What the summary said was skipped, filled, failed, wrong or odd.
    """

    files: Mapping[str, str]
    pixels: frozenset[str]
    recorded: frozenset[str]
    told: frozenset[str]


def compare(found: Output, whole: Output, attack: Attack) -> tuple[str, str]:
    """Say whether a store is the undisturbed one, and if it is not, whether anybody could know."""
    if found.files == whole.files:
        return SAME, ""
    differing = sorted(name for name, _ in found.files.items() ^ whole.files.items())
    hashes = {
        hashlib.sha256(part).hexdigest()
        for content in attack.files.values()
        if content is not None
        for part in (content, *_descriptions(content))
    }
    # Of a file that holds several planes, the manifest has the sha256 of the plane's pixels.
    if hashes & found.recorded or (found.recorded & found.pixels) - whole.recorded:
        return RECORDED, f"{differing[0]} differs"
    if found.told - whole.told:
        return TOLD, min(found.told - whole.told)[:200]
    return BROKEN, f"silent difference: {differing[:3]}"


def compare_with_truth(out: Path, victim: Victim) -> None:
    """Hold an undisturbed store against the source's pixels, read by zarr and by tifffile.

    Raises:
        ValueError: They differ, and no campaign on this ground would mean anything.
    """
    truth = victim.truth()
    fields = {key[:2] for key in truth}
    (store,) = out.glob("*.ome.zarr")
    if {path.parent.relative_to(store).as_posix() for path in store.glob("*/*/*/0/")} != {
        f"{well[:-2]}/{well[-2:]}/{site}" for well, site in fields
    }:
        message = f"{victim.name}: the undisturbed store holds other fields than the source"
        raise ValueError(message)
    for well, site in fields:
        pixels = np.asarray(zarr.open_array(store / well[:-2] / well[-2:] / str(site) / "0", mode="r")[:])
        expected = [plane for key, plane in sorted(truth.items()) if key[:2] == (well, site)]
        if not np.array_equal(pixels, np.stack(expected)):
            message = f"{victim.name} {well}/{site}: the undisturbed store holds other pixels than the source"
            raise ValueError(message)


def _descriptions(content: bytes) -> list[bytes]:
    """Text inside of a TIFF, with and without the byte that ends it; none if there is none to be read."""
    try:
        text = description_of(content)
    except (ValueError, struct.error):
        return []
    return [text, text + b"\0"]


def read_output(out: Path, summary: IngestSummary) -> Output:
    """Read what is there, and what was said."""
    paths = [*out.glob("*.ome.zarr/**/*"), *out.glob("*.cellvim/platemap.parquet")]
    # Without the plate's name, which damage may change: what is inside then says whether anything else did.
    files = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file()
    }
    recorded: set[str] = set()
    for path in out.glob("*.cellvim/manifest.parquet"):
        recorded |= set(pl.read_parquet(path)["sha256"].to_list())
    for path in out.glob("*.cellvim/run.json"):
        recorded |= set(json.loads(path.read_text())["inputs"].values())
    told = {
        f"{name}: {entry}"
        for plate in summary.plates
        for name in ("skipped", "failed", "filled", "problems", "warnings")
        for entry in _entries(getattr(plate, name))
    }
    return Output(files, _hash_planes(out), frozenset(recorded), frozenset(told))


def _hash_planes(out: Path) -> frozenset[str]:
    fields = [
        np.asarray(zarr.open_array(path, mode="r")[:])
        for path in out.glob("*.ome.zarr/*/*/*/0")
        if (path / "c").exists()
    ]
    planes = [plane.astype(plane.dtype.newbyteorder("<")) for pixels in fields for plane in pixels]
    return frozenset(hashlib.sha256(plane.tobytes()).hexdigest() for plane in planes)


def _entries(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        return [f"{key}: {value}" for key, value in content.items()]
    return [str(entry) for entry in content]
