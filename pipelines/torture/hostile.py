"""Files made to do harm: bombs that swell when they are read, and names that lead out of the source."""

import io
import re
import struct
import zlib
from collections.abc import Mapping
from functools import cache

import imagecodecs
import numpy as np
import tifffile

from pipelines.torture.attack import Attack
from pipelines.torture.escapes import EXPANDED, Canary, ways_out
from pipelines.torture.mutators import description_of, replace_description
from pipelines.torture.victim import Victim

BOMB_SECONDS = 1.0
BOMB, XML_BOMB = "TIFF bomb", "XML bomb"
_FLOOD_BYTES = 16 << 20


def attacks(victims: Mapping[str, Victim], canary: Canary) -> list[Attack]:
    """Every attack, on whichever of the plates there are."""
    found = [*_tiff_attacks(victims["imagexpress"]), *_xml_bombs(victims)]
    for victim in victims.values():
        found += ways_out(victim, canary)
    return found


def _tiff_attacks(victim: Victim) -> list[Attack]:
    # All images of the plate are the same bomb, and so of one size.
    return [
        Attack(victim.name, BOMB, name, dict.fromkeys(victim.targets["tiff"], content), BOMB_SECONDS)
        for name, content in tiff_bombs().items()
    ]


@cache
def tiff_bombs() -> dict[str, bytes]:
    """Images that claim gigapixels, or swell more than ten thousandfold."""
    small = np.ones((256, 256), np.uint16)
    bombs = {}
    for compression in (None, "lzw", "deflate", "zstd", "packbits", "lzma"):
        content = _tiff(small, compression)
        for side in (16_000, 65_000, 2**31 - 1):
            bombs[f"{side} x {side} of {compression} claimed"] = _with_size(content, side)
    floods = _floods()
    for name, flood in floods.items():
        bombs[f"{_FLOOD_BYTES >> 20} MiB of zeros in a strip of {name}"] = _with_strip(
            _tiff(small, name), flood
        )
    nested = zlib.compress(floods["deflate"], 9)
    bombs["nested deflate"] = _with_strip(_tiff(small, "deflate"), nested)
    # These are valid: their pixels are all there, at more than ten thousand bytes for each of the file's.
    bombs["8192 x 8192 zeros of zstd"] = _tiff(np.zeros((8192, 8192), np.uint16), "zstd")
    rows = bytes(2 * 16_384 * 16)
    bombs["a strip of deflate that stands for 1,024"] = _shared(8, zlib.compress(rows, 9))
    bombs["a strip of no compression that stands for 1,024"] = _shared(1, rows)
    return bombs


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
    """Eleven ways to make a reader of XML swell, hang, or fetch what is none of its business."""
    place = content.find(b"?>") + 2 if b"?>" in content[:200] else 0
    head, body = content[:place], content[place:]
    lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    laughs = f'<!DOCTYPE x [<!ENTITY e0 "ha">{lines}]>'.encode()
    big = f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]>'.encode()
    remote = b'<!DOCTYPE x [<!ENTITY %% p SYSTEM "%s"> %%p;]>'
    start = body.find(b">") + 1

    def inside(text: bytes) -> bytes:
        return head + body[:start] + text + body[start:]

    used = re.sub(rb">([^<>\s]+)<", b">&a;<", re.sub(rb' ((?!xmlns)\w+)="[^"&]*"', rb' \1="&a;"', body))
    return {
        "a small entity": head + f'<!DOCTYPE x [<!ENTITY a "{EXPANDED}">]>'.encode() + used,
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


def _floods() -> dict[str, bytes]:
    """Name of a compression to very many zeros."""
    zeros = bytes(_FLOOD_BYTES)
    return {
        "deflate": zlib.compress(zeros, 9),
        "lzw": bytes(imagecodecs.lzw_encode(zeros)),
        "zstd": bytes(imagecodecs.zstd_encode(zeros)),
        "packbits": b"\x81\0" * (_FLOOD_BYTES >> 7),
    }


def _shared(compression: int, strip: bytes) -> bytes:
    """A TIFF of 16,384 x 16,384 16-bit pixels in 1,024 strips, all of which are the same bytes."""
    side, count = 16_384, 1_024
    entries = {
        256: (4, 1, side), 257: (4, 1, side), 258: (3, 1, 16), 259: (3, 1, compression), 262: (3, 1, 1),
        273: (4, count, 8 + len(strip)), 277: (3, 1, 1), 278: (4, 1, side // count),
        279: (4, count, 8 + len(strip) + 4 * count),
    }  # fmt: skip
    tables = np.repeat(np.array([8, len(strip)], "<u4"), count).tobytes()
    directory = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in entries.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(strip) + len(tables))
    return head + strip + tables + struct.pack("<H", len(entries)) + directory + bytes(4)


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
