"""Ways to damage a file, each a function of its bytes and a random generator."""

import json
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from numpy.random import Generator

Mutator = Callable[[bytes, Generator], bytes]

# What no field of a table or an index should hold, and every one of them once did.
HOSTILE_TEXTS = (
    "", " ", "0", "-1", "1.5", "99", "4294967296", "9" * 5000, "1e999", "nan", "inf", "0x10", "1_0",
    "\u00b2", "\u0663", "\u2460", "A0", "A99", "AG01", "../../secret.tif", "..\\..\\secret.tif", "/etc/passwd",
    "C:\\secret.tif", "file:///etc/passwd", "con", "a\0b", "a\nb", "a\tb", '"', '"" "', "'", "a,b", ";", "<x>", "&amp;", "]]>",
    "=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1+1", "\ufeff", "\u202e", "\ud7ff", "e\u0301", "x" * 300, "x" * 200_000,
)  # fmt: skip
HOSTILE_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 32, 255, 256, 65535, 65536, 2**28, 2**31 - 1, 2**31, 2**32 - 1)
HOSTILE_JSON: tuple[Any, ...] = (
    None, True, -1, 0, 1e300, 2**70, "", "x" * 1000, "../..", "/etc", "²", [], {}, [[]], {"": None}, [-1], [2**40],
    ["0"] * 50,
)  # fmt: skip
ENCODINGS = ("utf-16", "utf-32", "utf-7", "cp037", "latin-1", "shift_jis", "bogus", "utf-8")
_MOST_NESTED = 200_000


def flip_bits(content: bytes, draw: Generator) -> bytes:
    changed = bytearray(content)
    for place in draw.integers(0, len(content), int(draw.integers(1, 9))):
        changed[place] ^= 1 << int(draw.integers(8))
    return bytes(changed)


def flip_header_bits(content: bytes, draw: Generator) -> bytes:
    """Flip bits near either end, where most formats keep what they say about themselves."""
    length = min(len(content), 512)
    if draw.integers(2):
        return flip_bits(content[:length], draw) + content[length:]
    return content[:-length] + flip_bits(content[-length:], draw)


def overwrite_run(content: bytes, draw: Generator) -> bytes:
    start, length = _run(content, draw)
    return content[:start] + draw.bytes(length) + content[start + length :]


def zero_run(content: bytes, draw: Generator) -> bytes:
    start, length = _run(content, draw)
    return content[:start] + bytes(length) + content[start + length :]


def truncate(content: bytes, draw: Generator) -> bytes:
    return content[: int(draw.integers(0, len(content)))]


def cut_out(content: bytes, draw: Generator) -> bytes:
    start, length = _run(content, draw)
    return content[:start] + content[start + length :]


def repeat_run(content: bytes, draw: Generator) -> bytes:
    start, length = _run(content, draw)
    return content[: start + length] + content[start:]


def swap_blocks(content: bytes, draw: Generator) -> bytes:
    length = max(1, min(4096, len(content) // 4))
    first, second = sorted(draw.integers(0, max(1, len(content) - length), 2).tolist())
    second = max(second, first + length)
    middle = content[first + length : second]
    return (
        content[:first]
        + content[second : second + length]
        + middle
        + content[first : first + length]
        + content[second + length :]
    )


def extreme_tag(content: bytes, draw: Generator) -> bytes:
    """Give a tag of a TIFF's first page another value, type, count or number."""
    order, start, count = _directory(content)
    if count == 0:
        return flip_header_bits(content, draw)
    place = start + 2 + 12 * int(draw.integers(count))
    what, value = int(draw.integers(6)), int(draw.choice(HOSTILE_NUMBERS))
    if what == 0:
        return _patched(content, place + 2, f"{order}H", value & 0xFFFF)
    if what == 1:
        return _patched(content, place + 4, f"{order}I", value)
    kind = struct.unpack_from(f"{order}H", content, place + 2)[0]
    return _patched(content, place + 8, f"{order}{'H' if kind == 3 else 'I'}", value & _mask(kind))


def pixel_tag(content: bytes, draw: Generator) -> bytes:
    """Change one of the tags that say how pixels are laid out."""
    order, start, count = _directory(content)
    wanted = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 339)
    places = [start + 2 + 12 * number for number in range(count)]
    places = [place for place in places if struct.unpack_from(f"{order}H", content, place)[0] in wanted]
    if not places:
        return flip_header_bits(content, draw)
    place = places[int(draw.integers(len(places)))]
    kind = struct.unpack_from(f"{order}H", content, place + 2)[0]
    value = int(draw.choice(HOSTILE_NUMBERS)) & _mask(kind)
    return _patched(content, place + 8, f"{order}{'H' if kind == 3 else 'I'}", value)


def loop_directories(content: bytes, draw: Generator) -> bytes:
    """Let the chain of pages lead back to the first, or to anywhere."""
    order, start, count = _directory(content)
    following = start + 2 + 12 * count
    target = start if draw.integers(2) else int(draw.integers(0, len(content)))
    place = following if draw.integers(4) and following + 4 <= len(content) else 4
    return _patched(content, place, f"{order}I", target)


def hostile_text(content: bytes, draw: Generator) -> bytes:
    """Replace the text of an element or attribute of an XML file."""
    spans = [match.span(1) for match in re.finditer(rb'>([^<>\r\n]+)<|="[^"]*"', content) if match[1]]
    spans += [match.span(1) for match in re.finditer(rb'="([^"]*)"', content)]
    return _with_text(content, spans, draw)


def hostile_cell(content: bytes, draw: Generator) -> bytes:
    """Replace a cell of a table."""
    return _with_text(content, [match.span() for match in re.finditer(rb"[^,\t\r\n]+", content)], draw)


def change_digit(content: bytes, draw: Generator) -> bytes:
    """Change one digit to another: the most plausible damage there is."""
    places = [match.start() for match in re.finditer(rb"\d", content)]
    if not places:
        return flip_bits(content, draw)
    place = places[int(draw.integers(len(places)))]
    return content[:place] + str(draw.integers(10)).encode() + content[place + 1 :]


def shuffle_lines(content: bytes, draw: Generator) -> bytes:
    """Swap, repeat or drop a line."""
    lines = content.splitlines(keepends=True)
    first, second = (int(place) for place in draw.integers(0, len(lines), 2)) if lines else (0, 0)
    match int(draw.integers(3)):
        case 0 if lines:
            lines[first], lines[second] = lines[second], lines[first]
        case 1:
            lines[first:first] = lines[second : second + 1]
        case _:
            del lines[first : first + 1]
    return b"".join(lines)


def other_encoding(content: bytes, draw: Generator) -> bytes:
    """Declare an encoding that is not the file's, or write the file in another one."""
    name = ENCODINGS[int(draw.integers(len(ENCODINGS)))]
    if draw.integers(2):
        return content.replace(b"utf-8", name.encode(), 1).replace(b"UTF-8", name.encode(), 1)
    text = content.decode("utf-8", errors="replace")
    return text.encode("utf-8" if name == "bogus" else name, errors="replace")


def expand_entities(content: bytes, draw: Generator) -> bytes:
    """Declare entities of entities, and use one."""
    depth = int(draw.integers(2, 30))
    lines = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, depth)]
    doctype = f'<!DOCTYPE x [<!ENTITY e0 "boom">{"".join(lines)}]>'.encode()
    place = content.find(b"?>") + 2 if b"?>" in content else 0
    body = re.sub(rb">([^<>\s]+)<", f">&e{depth - 1};<".encode(), content[place:], count=1)
    return content[:place] + doctype + body


def nest_deeply(content: bytes, draw: Generator) -> bytes:
    places = [match.end() for match in re.finditer(rb">", content)] or [0]
    place, depth = places[int(draw.integers(len(places)))], int(draw.integers(100, _MOST_NESTED))
    return content[:place] + b"<a>" * depth + b"</a>" * depth + content[place:]


def hostile_json(content: bytes, draw: Generator) -> bytes:
    """Replace, drop or repeat something inside a JSON document."""
    document = json.loads(content)
    parents = [parent for parent in _containers(document) if len(parent)]
    if not parents:
        return flip_bits(content, draw)
    parent = parents[int(draw.integers(len(parents)))]
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    key = keys[int(draw.integers(len(keys)))]
    match int(draw.integers(4)):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, list):
            parent.append(parent[key])
        case _:
            parent[key] = HOSTILE_JSON[int(draw.integers(len(HOSTILE_JSON)))]
    return json.dumps(document).encode()


def describe_with(mutator: Mutator) -> Mutator:
    """Let a mutator of XML loose on the description of a TIFF."""

    def mutate(content: bytes, draw: Generator) -> bytes:
        return replace_description(content, mutator(description_of(content), draw))

    return mutate


def description_of(content: bytes) -> bytes:
    """ImageDescription of the first page of a classic TIFF."""
    order, place = _description(content)
    length, start = struct.unpack_from(f"{order}II", content, place + 4)
    return content[start : start + length].rstrip(b"\0")


def replace_description(content: bytes, text: bytes) -> bytes:
    """Give a classic TIFF another ImageDescription in its first page, at the end of the file."""
    order, place = _description(content)
    entry = struct.pack(f"{order}HHII", 270, 2, len(text) + 1, len(content))
    return content[:place] + entry + content[place + 12 :] + text + b"\0"


BYTES: Mapping[str, Mutator] = {
    "bits flipped": flip_bits,
    "header bits flipped": flip_header_bits,
    "bytes overwritten": overwrite_run,
    "bytes zeroed": zero_run,
    "truncated": truncate,
    "bytes cut out": cut_out,
    "bytes repeated": repeat_run,
    "blocks swapped": swap_blocks,
}
TEXT: Mapping[str, Mutator] = {**BYTES, "digit changed": change_digit, "lines shuffled": shuffle_lines,
                               "other encoding": other_encoding}  # fmt: skip
XML: Mapping[str, Mutator] = {**TEXT, "hostile text": hostile_text, "entities expanded": expand_entities,
                              "nested deeply": nest_deeply}  # fmt: skip
MUTATORS: Mapping[str, Mapping[str, Mutator]] = {
    "bytes": BYTES,
    "tiff": {**BYTES, "tag set to an extreme": extreme_tag, "pixel tag changed": pixel_tag,
             "directories looped": loop_directories},
    "xml": XML,
    "ome-xml": {name: describe_with(mutator) for name, mutator in XML.items()},
    "csv": {**TEXT, "hostile cell": hostile_cell},
    "json": {**BYTES, "digit changed": change_digit, "hostile value": hostile_json,
             "another hostile value": hostile_json},
}  # fmt: skip
"""Kind of file to its mutators, by name."""


def _description(content: bytes) -> tuple[str, int]:
    """Byte order, and the place of the entry of tag 270."""
    order, start, count = _directory(content)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", content, place)[0] == 270:
            return order, place
    message = "the TIFF has no description"
    raise ValueError(message)


def _run(content: bytes, draw: Generator) -> tuple[int, int]:
    """Start and length of a part, mostly a short one."""
    length = min(len(content), 1 << int(draw.integers(0, 15)))
    return int(draw.integers(0, max(1, len(content) - length))), length


def _directory(content: bytes) -> tuple[str, int, int]:
    """Byte order, place and number of entries of the first directory of a classic TIFF; no entries if it has none."""
    order = ">" if content[:2] == b"MM" else "<"
    start = struct.unpack_from(f"{order}I", content, 4)[0]
    if start + 2 > len(content):
        return order, 0, 0
    count = struct.unpack_from(f"{order}H", content, start)[0]
    return order, start, count if start + 6 + 12 * count <= len(content) else 0


def _patched(content: bytes, place: int, code: str, value: int) -> bytes:
    new = struct.pack(code, value)
    return content[:place] + new + content[place + len(new) :]


def _mask(kind: int) -> int:
    return 0xFFFF if kind == 3 else 0xFFFFFFFF


def _with_text(content: bytes, spans: list[tuple[int, int]], draw: Generator) -> bytes:
    if not spans:
        return flip_bits(content, draw)
    start, end = spans[int(draw.integers(len(spans)))]
    text = HOSTILE_TEXTS[int(draw.integers(len(HOSTILE_TEXTS)))]
    encoding = "latin-1" if draw.integers(4) == 0 else "utf-8"
    return content[:start] + text.encode(encoding, errors="replace") + content[end:]


def _containers(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    here = [node] if isinstance(node, dict | list) else []
    return [*here, *(found for child in children for found in _containers(child))]
