"""Files made to do harm: bombs that swell when they are read, and names that lead out of the source."""

import io
import zlib
from collections.abc import Mapping

import numpy as np
import tifffile

from pipelines.torture.attack import Attack
from pipelines.torture.escapes import Canary, ways_out
from pipelines.torture.mutators import description_of, replace_description
from pipelines.torture.victim import Victim

BOMB_SECONDS = 1.0
BOMB, XML_BOMB = "TIFF bomb", "XML bomb"


def attacks(victims: Mapping[str, Victim], canary: Canary) -> list[Attack]:
    """Every attack, on whichever of the plates there are."""
    found = [*_tiff_bombs(victims["imagexpress"]), *_xml_bombs(victims)]
    for victim in victims.values():
        found += ways_out(victim, canary)
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
            for name, bomb in xml_bombs(description_of(content)).items():
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
