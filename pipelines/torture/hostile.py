"""Files made to do harm: bombs that swell when they are read, and names that lead out of the source."""

import hashlib
import io
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tifffile
import zarr

from pipelines.torture.mutators import replace_description
from pipelines.torture.victims import Victim

BOMB_SECONDS = 1.0
BOMB, XML_BOMB, ESCAPE = "TIFF bomb", "XML bomb", "way out"


@dataclass(frozen=True)
class Attack:
    """Files to put into a plate before it is ingested.

    Attributes:
        victim: Name of the plate.
        kind: Of the damaged file, or of the attack.
        damage: What is done, in words.
        files: Name relative to the victim's folder, to content; None where a file is to be missing.
        most_seconds: Time within which a dry run and an ingest must be over.
    """

    victim: str
    kind: str
    damage: str
    files: Mapping[str, bytes | None]
    most_seconds: float = 5.0


class Canary:
    """An image outside of every source. Nobody may open it, and its pixels must never appear in a store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "canary.tif"
        self._opened = False
        self._value = 54321
        tifffile.imwrite(self.path, np.full((256, 256), self._value, np.uint16))
        self._sha256 = hashlib.sha256(self.path.read_bytes()).hexdigest()
        sys.addaudithook(self._watch)

    def _watch(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(self.path.name):
            self._opened = True

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
            if any((plane == self._value).all() for plane in pixels):
                return f"the canary is in {path.relative_to(out)}"
        for path in out.glob("*.cellvim/manifest.parquet"):
            if self._sha256 in pl.read_parquet(path)["sha256"].to_list():
                return "the canary is in the manifest"
        return None


def attacks(victims: Mapping[str, Victim], canary: Canary) -> list[Attack]:
    """Every attack, on whichever of the plates there are."""
    found = [*_tiff_bombs(victims["imagexpress"]), *_xml_bombs(victims)]
    for victim in victims.values():
        found += _ways_out(victim, canary)
    return found


def _tiff_bombs(victim: Victim) -> list[Attack]:
    """Images that claim gigapixels, or swell more than ten thousandfold."""
    target = victim.targets["tiff"][0]
    small = np.ones((64, 64), np.uint16)
    bombs = {}
    for compression in (None, "lzw", "deflate", "zstd", "packbits", "lzma"):
        content = _tiff(small, compression)
        for side in (16_000, 65_000, 2**31 - 1):
            bombs[f"{side} x {side} of {compression} claimed"] = _with_size(content, side)
    flood = zlib.compress(bytes(64 << 20), 9)
    bombs["64 MiB of zeros in a strip of deflate"] = _with_strip(_tiff(small, "deflate"), flood)
    bombs["nested deflate"] = _with_strip(_tiff(small, "deflate"), zlib.compress(flood, 9))
    return [
        Attack(victim.name, BOMB, name, {target: content}, BOMB_SECONDS) for name, content in bombs.items()
    ]


def _xml_bombs(victims: Mapping[str, Victim]) -> list[Attack]:
    found = []
    for victim in victims.values():
        for target in victim.targets.get("xml", ()):
            content = (victim.folder / target).read_bytes()
            for name, bomb in xml_bombs(content).items():
                found.append(Attack(victim.name, XML_BOMB, f"{name} in {target}", {target: bomb}))
        for target in victim.targets.get("ome-xml", ()):
            content = (victim.folder / target).read_bytes()
            text = tifffile.TiffFile(io.BytesIO(content)).pages.first.description.encode()
            for name, bomb in xml_bombs(text).items():
                files = {target: replace_description(content, bomb)}
                found.append(Attack(victim.name, XML_BOMB, f"{name} in {target}", files))
    return found


def xml_bombs(content: bytes) -> dict[str, bytes]:
    """Ten ways to make a reader of XML swell, hang, or fetch what is none of its business."""
    place = content.find(b"?>") + 2 if b"?>" in content[:200] else 0
    head, body = content[:place], content[place:]
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    laughs = f'<!DOCTYPE x [<!ENTITY e0 "ha">{lines}]>'.encode()
    big = f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]>'.encode()
    remote = b'<!DOCTYPE x [<!ENTITY %% p SYSTEM "%s"> %%p;]>'
    start = body.find(b">") + 1

    def inside(text: bytes) -> bytes:
        return head + body[:start] + text + body[start:]

    return {
        "a billion laughs": head + laughs + body[:start] + b"&e11;" + body[start:],
        "a quadratic entity": head + big + body[:start] + b"&a;" * 20_000 + body[start:],
        "a recursive entity": head
        + b'<!DOCTYPE x [<!ENTITY a "&b;"><!ENTITY b "&a;">]>'
        + inside(b"&a;")[place:],
        "an external entity": head
        + b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        + inside(b"&a;")[place:],
        "a remote parameter entity": head + remote % b"http://127.0.0.1:9/x.dtd" + body,
        "a remote document type": head + b'<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">' + body,
        "200,000 levels": inside(b"<a>" * 200_000 + b"</a>" * 200_000),
        "a million attributes": inside(b"<a " + b" ".join(b'a%d=""' % n for n in range(1_000_000)) + b"/>"),
        "an attribute of 32 MB": inside(b'<a b="' + b"x" * (32 << 20) + b'"/>'),
        "200,000 empty elements": inside(b"<Image/>" * 200_000),
    }


def names_of(canary: Path, start: Path) -> list[str]:
    """Spell the way from a folder to the canary as an attacker would, and a few that only look like it."""
    up = "../" * len(start.resolve().parts)
    absolute = canary.resolve().as_posix()
    plain = up + absolute.lstrip("/")
    relative = _relative(canary, start)
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


def _ways_out(victim: Victim, canary: Canary) -> list[Attack]:
    """Put every spelling in the place of a name that the plate's index gives."""
    found = []
    for index, name in NAMES.get(victim.name, ()):
        content = (victim.folder / index).read_bytes()
        for way in names_of(canary.path, (victim.folder / index).parent):
            changed = content.replace(name, _escaped(way, index), 1)
            found.append(Attack(victim.name, ESCAPE, f"{way!r:.80} in {index}", {index: changed}))
    return found


# Victim to the index files, and a text in each, that say where an image is.
NAMES: dict[str, tuple[tuple[str, bytes], ...]] = {
    "operetta": (("Images/Index.idx.xml", b"r03c03f01p01-ch1sk1fk1fl1.tiff"),),
}


def _escaped(text: str, index: str) -> bytes:
    """As it has to be written in an index of this kind; a NUL stays, as an attacker would leave it."""
    if not index.endswith((".xml", ".mlf")):
        return text.encode()
    return text.replace("&", "&amp;").replace("<", "&lt;").encode()


def _relative(path: Path, start: Path) -> str:
    parts, base = path.resolve().parts, start.resolve().parts
    shared = next(
        (n for n, pair in enumerate(zip(parts, base, strict=False)) if pair[0] != pair[1]), len(base)
    )
    return "/".join([*[".."] * (len(base) - shared), *parts[shared:]])


def _tiff(pixels: np.ndarray, compression: str | None) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, compression=compression)
    return file.getvalue()


def _with_size(content: bytes, side: int) -> bytes:
    """Let a TIFF claim that it is square, with one strip."""
    for tag in (256, 257, 278):
        content = _with_tag(content, tag, side)
    return content


def _with_strip(content: bytes, strip: bytes) -> bytes:
    return _with_tag(_with_tag(content, 273, len(content)), 279, len(strip)) + strip


def _with_tag(content: bytes, tag: int, value: int) -> bytes:
    place = content.index(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0") + 8
    return content[:place] + value.to_bytes(4, "little") + content[place + 4 :]
