"""Names in indexes that lead out: to an image that nobody may open, or to a place where nobody may write."""

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
EXPANDED = "expanded-entity"
"""What an entity of a bomb stands for: it may appear in no store and in no message."""
_VALUE = 54321
_NEW = "named"
"""What is not there, and must not come to be: where a plate's name leads."""
_OUT = "../../out"


@dataclass(frozen=True)
class Name:
    """A text that says where something is.

    Attributes:
        index: File that holds it, relative to the victim's folder.
        text: As it stands there, quotes included where it would be found elsewhere, too.
        start: Folder that the name is relative to, relative to the victim's folder.
        canary: What to lead to, below the folder of canaries.
        before: What comes before the text, where it would be found elsewhere, too.
        count: How often it is replaced; -1 is everywhere.
    """

    index: str
    text: bytes
    start: str
    canary: str = "canary.tif"
    before: bytes = b""
    count: int = 1


NAMES: Mapping[str, tuple[Name, ...]] = {
    "operetta": (
        Name("Images/Index.idx.xml", b"r03c03f01p01-ch1sk1fk1fl1.tiff", "Images"),
        Name("Images/Index.idx.xml", b"Test_Sample_BALL", _OUT, _NEW, count=-1),
    ),
    "imagexpress": (Name("3434/9987.HTD", b'"DAPI"', _OUT, _NEW),),
    "load_data": (
        Name("P/load_data.csv", b"a.tif", "P/images"),
        Name("P/load_data.csv", b"/home/ubuntu/screen/P/images", "P", "."),
        Name("P/load_data.csv", b"P", _OUT, _NEW, before=b"/P/images,"),
    ),
    "cellvoyager": (
        Name("P7/MeasurementData.mlf", b"P7_B03_T0001F001L01A01Z01C01.tif", "P7"),
        Name("P7/MeasurementDetail.mrf", b"Minimal.mes", "P7"),
        Name("P7/MeasurementDetail.mrf", b"P7", _OUT, _NEW, before=b'bts:Name="'),
    ),
    "ome_tiff": (
        Name("P/c1.ome.tif", b"c2.ome.tif", "P"),
        Name("P/c1.ome.tif", b"c1.ome.tif", "P"),
        Name("P/c1.ome.tif", b"OMEPLATE", _OUT, _NEW),
    ),
    "ome_companion": (
        Name("P/P.companion.ome", b"c1.tif", "P"),
        Name("P/P.companion.ome", b"OMEPLATE", _OUT, _NEW),
    ),
    "ome_zarr": (
        Name("P.zarr/.zattrs", b'"B/03"', "P.zarr", "plate.zarr/B/03"),
        Name("P.zarr/B/03/.zattrs", b'"0"', "P.zarr/B/03", "plate.zarr/B/03/0"),
        Name("P.zarr/B/03/0/.zattrs", b'"path": "0"', "P.zarr/B/03/0", "plate.zarr/B/03/0/0"),
        Name("P.zarr/.zattrs", b'"name": "P"', _OUT, _NEW),
    ),
    "own_zarr": (Name("Q.ome.zarr/zarr.json", b'"name": "Q"', _OUT, _NEW),),
}
"""Victim to the names in its indexes."""


class Canary:
    """Files outside of every source. Nobody may open them, put another beside them, or bring their pixels into a store.

    Args:
        folder: For the files; what lies beside it now is all that may ever lie there, but for the output.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((256, 256), _VALUE, np.uint16)
        tifffile.imwrite(self.folder / "canary.tif", pixels)
        for name in ("a.tif", "b.tif"):
            tifffile.imwrite(self.folder / name, pixels)
        (self.folder / "canary.csv").write_text("well,perturbation,control_type\nA01,canary,\n")
        write_plate_04(self.folder / "plate.zarr", np.stack([pixels, pixels]))
        self._sha256 = hashlib.sha256((self.folder / "canary.tif").read_bytes()).hexdigest()
        self._around = self._list_around()
        self._touched = ""
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            # By its name first: this is asked for every file that any module opens.
            path = str(arguments[0])
            if path == "/etc/passwd":
                self._touched = "an external entity was opened"
            elif self.folder.name in path and Path(os.path.realpath(path)).is_relative_to(self.folder):
                self._touched = "the canary was opened"
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self._touched = "the network was asked"

    def _list_around(self) -> set[str]:
        return {path.name for folder in (self.folder, self.folder.parent) for path in folder.iterdir()}

    def forget(self) -> None:
        self._touched = ""

    def touched(self, out: Path) -> str | None:
        """Say what was opened or made outside of `out`; None if nothing was."""
        if self._touched:
            return self._touched
        made = sorted(self._list_around() - self._around - {out.name})
        return f"{made[0]} was made outside of the output" if made else None

    def escape(self, out: Path) -> str | None:
        """Say how anything got out of the source or out of `out`; None if it did not."""
        if (touched := self.touched(out)) is not None:
            return touched
        for path in out.glob("*.ome.zarr/*/*/*/0"):
            pixels = np.asarray(zarr.open_array(path, mode="r")[:])
            if any((plane == _VALUE).all() for plane in pixels):
                return f"the canary is in {path.relative_to(out)}"
        for path in out.glob("*.cellvim/*.parquet"):
            table = pl.read_parquet(path)
            if "sha256" in table.columns and self._sha256 in table["sha256"].to_list():
                return "the canary is in the manifest"
            if "canary" in table.select(pl.selectors.string()).to_series().to_list():
                return "the canary is in the plate map"
        if any(EXPANDED.encode() in path.read_bytes() for path in out.rglob("*.json")):
            return "an entity was expanded"
        return None


def ways_out(victim: Victim, canary: Canary) -> list[Attack]:
    """Put every spelling of the canary's place where the plate's indexes name something."""
    found = []
    for name in NAMES.get(victim.name, ()):
        original = (victim.folder / name.index).read_bytes()
        content = description_of(original) if name.index.endswith(".tif") else original
        if name.before + name.text not in content:
            message = f"{name.index} of {victim.name} does not name {name.text!r}"
            raise ValueError(message)
        for way in names_of(canary.folder / name.canary, victim.folder / name.start):
            spelt = name.before + _spelt(way, name)
            changed = content.replace(name.before + name.text, spelt, name.count)
            if name.index.endswith(".tif"):
                changed = replace_description(original, changed)
            damage = f"{way!r:.80} for {name.text.decode()} in {name.index}"
            found.append(Attack(victim.name, ESCAPE, damage, {name.index: changed}))
    return [*found, *_barcode_lists(victim, canary)]


def _barcode_lists(victim: Victim, canary: Canary) -> list[Attack]:
    """Lists of barcodes in the place of a plate map, that name a map elsewhere."""
    if victim.settings.get("platemap") != "map.csv":
        return []
    plate = victim.settings["plate"]
    return [
        Attack(victim.name, ESCAPE, f"{way!r:.80} for a plate map in map.csv", {"map.csv": content})
        for way in names_of(canary.folder / "canary.csv", victim.folder)
        for content in [f"Assay_Plate_Barcode,Plate_Map_Name\n{plate},{way}\n".encode()]
    ]


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
