"""OME-XML: images, the pages behind their planes, and the plate that they belong to.

Source:
    The OME data model, schema 2016-06, and its OME-TIFF specification. Older schemas differ in names only.
"""

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn
from xml.etree.ElementTree import ParseError

from cellvim.errors import InputError
from cellvim.ingest.readers.xml_pieces import iterparse
from cellvim.ingest.sources import MOST_FILES, Wavelengths
from cellvim.store import well_name

MOST_XML_BYTES = 64 << 20
# In a run's record, before the name of a file whose first page says where its planes belong.
OME_XML_IN = "OME-XML in "
# With two or three elements for a plane, what fits into so many bytes has no more.
MOST_ELEMENTS = 1_000_000
_UM = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}
_HINT = "write the OME-TIFF again, or describe its name with --pattern"


@dataclass(frozen=True, slots=True)
class Block:
    """A run of pages, and the plane that the first of them holds.

    Attributes:
        page: Number of the first page, from 0.
        first: Position of its plane among all planes of the image, in the image's order of dimensions.
        count: Number of pages.
        uuid: Of the file that holds them; None if it is the one that the XML came from.
        file_name: Of that file, where it is given.
    """

    page: int
    first: int
    count: int
    uuid: str | None
    file_name: str | None


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One field of view.

    Attributes:
        channels: Names, empty where there is none.
        sizes: Number of channels, z planes and time points under ``C``, ``Z`` and ``T``.
        order: These three letters, the one that changes fastest first.
        pixel_size_um: None if the source does not say, or where pixels are not square.
        acquired: ISO 8601.
    """

    name: str
    channels: tuple[str, ...]
    wavelengths: tuple[Wavelengths, ...]
    sizes: Mapping[str, int]
    order: str
    pixel_size_um: float | None
    acquired: str | None
    blocks: tuple[Block, ...]

    def planes(self) -> Iterator[tuple[Block, int, dict[str, int]]]:
        """Yield every plane: its block, its page, and its numbers under ``C``, ``Z`` and ``T``, all from 0."""
        for block in self.blocks:
            for step in range(block.count):
                rest, place = block.first + step, {}
                for axis in self.order:
                    rest, place[axis] = divmod(rest, self.sizes[axis])
                yield block, block.page + step, place


@dataclass(frozen=True, slots=True)
class Sample:
    """One field of a plate: its well, its number among all fields, and the key of its image if it has one."""

    well: str
    index: int | None
    image: str | None


@dataclass(frozen=True, slots=True)
class OmePlate:
    """A plate's names, empty where there is none, and its fields in the order of the XML."""

    name: str
    barcode: str
    samples: tuple[Sample, ...]


@dataclass
class OmeDocument:
    """What one OME-XML says.

    Attributes:
        uuid: Of the file that it belongs to; empty if it has none.
        metadata_file: The file that says everything, where this one only refers to it.
    """

    uuid: str = ""
    metadata_file: str = ""
    images: dict[str, OmeImage] = field(default_factory=dict)
    plates: list[OmePlate] = field(default_factory=list)


def parse_ome(content: bytes, place: str) -> OmeDocument:
    """Parse OME-XML.

    Args:
        content: The XML; it may end in zeros, as TIFF tags do.
        place: Where it came from, for messages.

    Raises:
        InputError: No OME-XML, damaged, or of colour images.
    """
    document = OmeDocument()
    try:
        for element in _children(content.strip(b"\0 \r\n\t"), document):
            tag = _local(element)
            if tag == "Image":
                document.images[element.get("ID", f"Image:{len(document.images)}")] = _image(element)
            elif tag == "Plate":
                document.plates.append(_plate(element))
            elif tag == "BinaryOnly":
                document.metadata_file = element.get("MetadataFile", "")
    except InputError as error:
        found = f"{place}: {error.found}"
        raise InputError(found, hint=error.hint) from error
    except (ParseError, LookupError, ValueError) as error:
        # LookupError: no such encoding. ValueError: what defusedxml forbids, or an encoding of several bytes.
        found = f"{place}: its OME-XML cannot be read: {error}"
        raise InputError(found, hint=_HINT) from error
    return document


def _children(content: bytes, document: OmeDocument) -> Iterator[Any]:
    """Stream what lies right below the root, and forget it: the XML of a plate may be tens of megabytes."""
    depth, count, root = 0, 0, None
    for event, element in iterparse(io.BytesIO(content)):
        depth += 1 if event == "start" else -1
        count += event == "start"
        if count > MOST_ELEMENTS:
            _refuse(f"its OME-XML has more than {MOST_ELEMENTS:,} elements")
        if root is None:
            root = element
            document.uuid = root.get("UUID", "")
            if _local(root) != "OME":
                _refuse(f"the XML is no OME-XML, it starts with {_local(root)[:40]!r}")
        if event == "end" and depth == 1:
            yield element
            root.clear()


def _image(element: Any) -> OmeImage:
    name = element.get("Name") or element.get("ID", "")
    pixels = next(_named(element, "Pixels"), None)
    if pixels is None:
        _refuse(f"image {name!r} has no pixels")
    sizes = {axis: _size(pixels, axis, name) for axis in "CZT"}
    order = pixels.get("DimensionOrder", "XYZCT")[2:].upper()
    total = math.prod(sizes.values())
    if sorted(order) != ["C", "T", "Z"] or total > MOST_FILES:
        _refuse(f"image {name!r} claims {total:,} planes in order {order!r}")
    channels = list(_named(pixels, "Channel"))
    if len(channels) > sizes["C"] or any(_number(c, "SamplesPerPixel", 1) != 1 for c in channels):
        _refuse(f"image {name!r} holds colours in one plane, expected one grey channel per plane")
    blank = sizes["C"] - len(channels)
    dates = [*_texts(element, "AcquisitionDate"), *_texts(element, "CreationDate")]
    return OmeImage(
        name=name,
        channels=(*((channel.get("Name") or "").strip() for channel in channels), *[""] * blank),
        wavelengths=(*map(_wavelengths, channels), *[Wavelengths()] * blank),
        sizes=sizes,
        order=order,
        pixel_size_um=_pixel_size_um(pixels),
        acquired=next(filter(None, map(_iso, dates)), None),
        blocks=tuple(_blocks(pixels, sizes, order, total)),
    )


def _blocks(pixels: Any, sizes: Mapping[str, int], order: str, total: int) -> Iterator[Block]:
    named = 0
    for data in _named(pixels, "TiffData"):
        first, step = 0, 1
        for axis in order:
            place = _number(data, f"First{axis}", 0)
            if place >= sizes[axis]:
                _refuse(f"its pages start at {axis} {place}, of {sizes[axis]} planes")
            first, step = first + place * step, step * sizes[axis]
        # As the specification has it: a page alone is one plane, nothing at all is every plane.
        usual = 1 if data.get("IFD") is not None else total - first
        count = _number(data, "PlaneCount", _number(data, "NumPlanes", usual))
        named += count
        if first + count > total or named > 2 * MOST_FILES:
            _refuse(f"its pages name plane {first + count:,} of {total:,}")
        uuid = next(_named(data, "UUID"), None)
        yield Block(
            page=_number(data, "IFD", 0),
            first=first,
            count=count,
            uuid=None if uuid is None else (uuid.text or "").strip(),
            file_name=None if uuid is None else uuid.get("FileName"),
        )


def _plate(element: Any) -> OmePlate:
    samples = []
    for well in _named(element, "Well"):
        name = well_name(_number(well, "Row", None) + 1, _number(well, "Column", None) + 1)
        for sample in _named(well, "WellSample"):
            reference = next(_named(sample, "ImageRef"), None)
            index = _number(sample, "Index", 0) if sample.get("Index") else None
            samples.append(Sample(name, index, None if reference is None else reference.get("ID", "")))
    barcode = element.get("ExternalIdentifier") or ""
    return OmePlate((element.get("Name") or "").strip(), barcode.strip(), tuple(samples))


def _named(element: Any, name: str) -> Iterator[Any]:
    return (child for child in element if _local(child) == name)


def _texts(element: Any, name: str) -> list[str]:
    return [(child.text or "").strip() for child in _named(element, name)]


def _local(element: Any) -> str:
    """Tag without its namespace: every schema has its own."""
    return str(element.tag).rpartition("}")[2]


def _size(pixels: Any, axis: str, name: str) -> int:
    size = _number(pixels, f"Size{axis}", None)
    if size < 1:
        _refuse(f"image {name!r} has Size{axis} {size}")
    return size


def _number(element: Any, name: str, default: int | None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10):
        _refuse(f"{_local(element)} has {name} {text!r}, expected a number")
    return int(text)


def _refuse(found: str) -> NoReturn:
    raise InputError(found, hint=_HINT)


def _length_um(element: Any, name: str, unit: str) -> float | None:
    try:
        length = float(element.get(name, "")) * _UM[element.get(f"{name}Unit", unit)]
    except (ValueError, KeyError):
        return None
    return length if 0 < length < 1e6 else None


def _pixel_size_um(pixels: Any) -> float | None:
    width, height = (_length_um(pixels, f"PhysicalSize{axis}", "µm") for axis in "XY")
    if width is None or (height is not None and not math.isclose(width, height, rel_tol=1e-3)):
        return None
    return round(width, 9)


def _wavelengths(channel: Any) -> Wavelengths:
    lengths = (_length_um(channel, f"{name}Wavelength", "nm") for name in ("Excitation", "Emission"))
    excitation, emission = (None if length is None else round(length * 1e3, 3) for length in lengths)
    return Wavelengths(excitation, emission)


def _iso(text: str) -> str | None:
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        return None
