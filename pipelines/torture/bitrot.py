"""Bits of a stored plate, flipped one at a time: `cellvim verify` must find each."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from cellvim.ingest.checking.plates import verify_plates
from pipelines.torture.page import Row, Section
from pipelines.torture.screen import NAME, copy_screen

WELLS = 4
FLIPS = 1000
KINDS = {
    "pixels": "c/0/0/0",
    "metadata of OME-Zarr": "zarr.json",
    "list of checksums": "checksums.json",
    "record of the run": "run.json",
    "records of fields": ".json",
    "histograms": ".histogram",
    "tables": ".parquet",
    "page of quality": ".html",
}
"""What a file holds to the end of its name; the first that fits."""
BODY = """One bit was flipped in a plate of real images, at a random place of a random file, then `cellvim verify` looked at the whole
plate, then the bit was put right, {flips} times. Half of the files were drawn by their size, as decay would, the
others alike, so that small ones have their share. Every file of `PLATE.ome.zarr` and of `PLATE.cellvim` was hit at least once: {is_complete}.

| file | files | flips | found |
|---|---|---|---|
{rows}
| all | {files} | {flips} | {found} |

Undamaged, before and after, the plate was found intact: {is_sound}. It has {megabytes:.1f} MB; a verification reads all of them.

Not covered: what is not part of a plate, such as tables, weights and reports, whose checksums stand in the `run.json` of what was made
from them; bits that are flipped in `PLATE.cellvim/checksums.json` and in the file that it names at once, so that they agree;
and bits that rot in memory before a file is written.

{footer}
"""


@dataclass(frozen=True)
class Flip:
    """One bit.

    Attributes:
        name: File, relative to the folder of plates.
        bit: From the file's first.
        is_found: `verify` said that something is wrong.
    """

    name: str
    bit: int
    is_found: bool

    @property
    def kind(self) -> str:
        return kind_of(self.name)


@dataclass(frozen=True)
class Rot:
    """All flips of a plate.

    Attributes:
        sizes: File to its bytes.
        flips: In the order of the draws.
        is_sound: The plate was intact before the first, and after the last.
    """

    sizes: dict[str, int]
    flips: list[Flip]
    is_sound: bool


def torture_bits(data: Path, out: Path, *, flips: int = FLIPS, seed: int, wells: int = WELLS) -> Rot:
    """Ingest a plate with a plate map, and flip bits of it.

    Args:
        data: Folder of real plates.
        out: Receives the plate.
        flips: How many.
        seed: Of the places.
        wells: Size of the plate.
    """
    shutil.rmtree(out, ignore_errors=True)
    source = copy_screen(data, out / "source", wells=wells)
    (out / "map.csv").write_text("well,perturbation,control_type\nA01,DMSO,negcon\nA02,taxol,\n")
    content = {"sources": (source,), "out": out / "plates", "platemap": out / "map.csv", "workers": 1}
    ingest_plates(IngestSettings.checked(content))
    folder = out / "plates"
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size
    }
    was_sound = not _is_found(folder)
    found = [_flip(folder, name, bit) for name, bit in draw_bits(sizes, flips, seed)]
    return Rot(sizes, found, was_sound and not _is_found(folder))


def rot_section(rot: Rot, footer: str) -> Section:
    """Set what was found beside how, where and when it was looked for."""
    files, flips = Counter(map(kind_of, rot.sizes)), Counter(flip.kind for flip in rot.flips)
    found = Counter(flip.kind for flip in rot.flips if flip.is_found)
    hit = {flip.name for flip in rot.flips}
    body = BODY.format(
        flips=len(rot.flips),
        is_complete="yes" if hit == set(rot.sizes) else f"no, {len(hit)} of {len(rot.sizes)}",
        rows="\n".join(
            f"| {kind} | {files[kind]} | {flips[kind]} | {found[kind]} |"
            for kind in (*KINDS, "others")
            if files[kind]
        ),
        files=len(rot.sizes),
        found=found.total(),
        is_sound="yes" if rot.is_sound else "no",
        megabytes=sum(rot.sizes.values()) / 1e6,
        footer=footer,
    )
    failures = [f"bit {flip.bit} of {flip.name} is not found" for flip in rot.flips if not flip.is_found]
    if not rot.is_sound:
        failures.append("the undamaged plate is not found intact")
    row = Row(
        "bit rot",
        f"{len(rot.flips):,} bits flipped one at a time in all {len(rot.sizes)} files of a plate and its companion",
        f"`cellvim verify` finds {FLIPS:,}",
        f"{found.total():,}",
        found.total() == len(rot.flips) >= FLIPS and not failures,
    )
    return Section("Bit rot", body, failures, (row,))


def draw_bits(sizes: dict[str, int], flips: int, seed: int) -> Iterator[tuple[str, int]]:
    """Draw files, each once first if there are flips enough, then half by size and half alike; and a bit of each."""
    draw = np.random.default_rng(seed)
    names = list(sizes)
    share = np.array([*sizes.values()]) / sum(sizes.values())
    for number in range(flips):
        by_size = None if number % 2 else share
        name = (
            names[number] if number < len(names) <= flips else names[int(draw.choice(len(names), p=by_size))]
        )
        yield name, int(draw.integers(8 * sizes[name]))


def kind_of(name: str) -> str:
    """What a file of a plate holds."""
    return next((kind for kind, end in KINDS.items() if name.endswith(end)), "others")


def _flip(folder: Path, name: str, bit: int) -> Flip:
    path = folder / name
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[bit // 8] ^= 1 << bit % 8
    path.write_bytes(damaged)
    try:
        return Flip(name, bit, _is_found(folder))
    finally:
        path.write_bytes(whole)


def _is_found(folder: Path) -> bool:
    return any(found.problems for found in verify_plates([folder / f"{NAME}.ome.zarr"]).values())
