"""Names in indexes that lead out of the source, to an image that nobody may open."""

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
import zarr

from pipelines.torture.attack import Attack
from pipelines.torture.mutators import description_of, replace_description
from pipelines.torture.vendors import write_plate_04
from pipelines.torture.victim import Victim

ESCAPE = "way out"
_VALUE = 54321


@dataclass(frozen=True)
class Name:
    """A text that says where something is.

    Attributes:
        index: File that holds it, relative to the victim's folder.
        text: As it stands there, quotes included where it would be found elsewhere, too.
        start: Folder that the name is relative to, relative to the victim's folder.
        canary: What to lead to, below the folder of canaries.
    """

    index: str
    text: bytes
    start: str
    canary: str = "canary.tif"


NAMES: Mapping[str, tuple[Name, ...]] = {
    "operetta": (Name("Images/Index.idx.xml", b"r03c03f01p01-ch1sk1fk1fl1.tiff", "Images"),),
    "load_data": (
        Name("P/load_data.csv", b"a.tif", "P/images"),
        Name("P/load_data.csv", b"/home/ubuntu/screen/P/images", "P", "."),
    ),
    "cellvoyager": (
        Name("P7/MeasurementData.mlf", b"P7_B03_T0001F001L01A01Z01C01.tif", "P7"),
        Name("P7/MeasurementDetail.mrf", b"Minimal.mes", "P7"),
    ),
    "ome_tiff": (Name("P/c1.ome.tif", b"c2.ome.tif", "P"), Name("P/c1.ome.tif", b"c1.ome.tif", "P")),
    "ome_zarr": (
        Name("P.zarr/.zattrs", b'"B/03"', "P.zarr", "plate.zarr/B/03"),
        Name("P.zarr/B/03/.zattrs", b'"0"', "P.zarr/B/03", "plate.zarr/B/03/0"),
        Name("P.zarr/B/03/0/.zattrs", b'"path": "0"', "P.zarr/B/03/0", "plate.zarr/B/03/0/0"),
    ),
}
"""Victim to the names in its indexes."""


class Canary:
    """Images outside of every source. Nobody may open them, and their pixels must never appear in a store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((256, 256), _VALUE, np.uint16)
        tifffile.imwrite(self.folder / "canary.tif", pixels)
        for name in ("a.tif", "b.tif"):
            tifffile.imwrite(self.folder / name, pixels)
        write_plate_04(self.folder / "plate.zarr", np.stack([pixels, pixels]))
        self._sha256 = hashlib.sha256((self.folder / "canary.tif").read_bytes()).hexdigest()
        self._opened = False
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        # By its name first: this is asked for every file that any module opens.
        if event == "open" and self.folder.name in str(arguments[0]):
            self._opened |= Path(os.path.realpath(str(arguments[0]))).is_relative_to(self.folder)

    def forget(self) -> None:
        self._opened = False

    def was_opened(self) -> bool:
        return self._opened

    def escape(self, out: Path) -> str | None:
        """Say how the canary got into a store; None if it did not."""
        if self._opened:
            return "the canary was opened"
        for path in out.glob("*.ome.zarr/*/*/*/0"):
            pixels = np.asarray(zarr.open_array(path, mode="r")[:])
            if any((plane == _VALUE).all() for plane in pixels):
                return f"the canary is in {path.relative_to(out)}"
        for path in out.glob("*.cellvim/manifest.parquet"):
            if self._sha256 in pl.read_parquet(path)["sha256"].to_list():
                return "the canary is in the manifest"
        return None


def ways_out(victim: Victim, canary: Canary) -> list[Attack]:
    """Put every spelling of the canary's place where the plate's indexes name an image."""
    found = []
    for name in NAMES.get(victim.name, ()):
        original = (victim.folder / name.index).read_bytes()
        content = description_of(original) if name.index.endswith(".tif") else original
        for way in names_of(canary.folder / name.canary, victim.folder / name.start):
            changed = content.replace(name.text, _spelt(way, name), 1)
            if name.index.endswith(".tif"):
                changed = replace_description(original, changed)
            damage = f"{way!r:.80} for {name.text.decode()} in {name.index}"
            found.append(Attack(victim.name, ESCAPE, damage, {name.index: changed}))
    return found


def names_of(canary: Path, start: Path) -> list[str]:
    """Spell the way from a folder to the canary as an attacker would, and a few that only look like it."""
    absolute = canary.resolve().as_posix()
    plain = "../" * len(start.resolve().parts) + absolute.lstrip("/")
    relative = _relative(canary.resolve(), start.resolve())
    forms = [
        plain, relative, absolute, f"./{relative}", f"Images/../{relative}", f"a/../../{relative}", f"//{absolute}",
        f"file://{absolute}", f"file:{absolute}", f"\\\\localhost{absolute}", f"C:{absolute}", f"C:/{absolute}",
        f"~/../..{absolute}", f"{relative}\0.tif", f"x\0/{relative}", f" {relative}", f"{relative} ", f"\t{relative}",
        relative.replace("../", "..//"), relative.replace("../", ".././"), relative.replace("../", "%2e%2e/"),
        relative.replace("../", "..%2f"), relative.replace("../", "..;/"), relative.replace("../", "....//"),
        relative.replace("/", "\\"), plain.replace("/", "\\"), absolute.replace("/", "\\"), f"c:{relative}",
        f"{canary.parent.as_posix()}/./{canary.name}", f"/proc/self/root{absolute}", f"{absolute}#", f"{absolute}?",
        relative.replace("../", "\uff0e\uff0e/"), relative.replace("../", "..\u2215"), f"$PWD/{relative}",
        f"`echo {relative}`", f"$(echo {absolute})", relative.upper(), f"{start.resolve().as_posix()}/{relative}",
        f"{start.name}/../{relative}",
    ]  # fmt: skip
    return list(dict.fromkeys(forms))


def _spelt(way: str, name: Name) -> bytes:
    """As it has to be written in an index of this kind; a NUL stays, as an attacker would leave it."""
    if not name.text.endswith(b'"'):
        is_table = name.index.endswith(".csv")
        return (way if is_table else way.replace("&", "&amp;").replace("<", "&lt;")).encode()
    escaped = way.replace("\\", "\\\\").replace("\0", "\\u0000").replace("\t", "\\t")
    head = name.text[:-1].rpartition(b'"')[0]
    return head + f'"{escaped}"'.encode()


def _relative(path: Path, start: Path) -> str:
    parts, base = path.parts, start.parts
    shared = next(
        (n for n, pair in enumerate(zip(parts, base, strict=False)) if pair[0] != pair[1]), len(base)
    )
    return "/".join([*[".."] * (len(base) - shared), *parts[shared:]])
