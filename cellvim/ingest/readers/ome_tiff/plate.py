"""Fields and channels of OME-TIFF plates: from a Plate element, or else from the names of the files."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cellvim.errors import InputError
from cellvim.ingest.readers.ome_tiff.files import Holder, file_of
from cellvim.ingest.readers.ome_tiff.xml import OmeImage
from cellvim.ingest.sources import Plane, Wavelengths
from cellvim.store import FieldKey, parse_well
from cellvim.store.naming import COLUMN_EXPRESSION, ROW_EXPRESSION

_WELL = re.compile(
    rf"(?<![A-Za-z0-9])(?:well[ _-]?)?({ROW_EXPRESSION}{COLUMN_EXPRESSION})(?![A-Za-z0-9])", re.IGNORECASE
)
# Site, field, wavelength, channel, depth and time look like wells of those rows.
_NO_WELL = re.compile(r"[sfwczt]\d", re.IGNORECASE)
_FIELD = re.compile(
    r"(?<![A-Za-z0-9])(?:f|s|fov|field|site|pos|position)[ _-]?0*(\d{1,6})(?![A-Za-z0-9])", re.IGNORECASE
)
_SUFFIX = re.compile(r"(\.ome)?\.tiff?$|\.companion\.ome$|\.ome\.xml$", re.IGNORECASE)


@dataclass
class OmeField:
    """One image and where it belongs.

    Attributes:
        image: None if the plate names a field whose image is nowhere described.
        index: Its number among the fields of its plate or file.
        named: Its number by the name of its file, where that tells.
        site: Counted from 1 within its well; 0 until `number_sites` has seen all fields.
    """

    holder: Holder
    image: OmeImage | None
    well: str
    index: int
    named: int | None
    barcode: str = ""
    site: int = 0


def fields_of(holder: Holder) -> tuple[dict[str, list[OmeField]], list[str]]:
    """Say which fields a document describes, by plate, and name the images that belong to no well.

    The plate's name is empty where the document has no plate, or one without a name.
    """
    document = holder.document
    if not document.plates:
        return {"": _by_names(holder)}, []
    fields: dict[str, list[OmeField]] = {}
    used: set[str] = set()
    for plate in document.plates:
        own = fields.setdefault(plate.name or plate.barcode, [])
        for position, sample in enumerate(plate.samples):
            index = position if sample.index is None else sample.index
            image = document.images.get(sample.image or "")
            named = field_in(holder.path.name)
            own.append(OmeField(holder, image, sample.well, index, named, plate.barcode))
            used.add(sample.image or "")
    return fields, [image.name for key, image in document.images.items() if key not in used]


def without_twins(fields: Sequence[OmeField]) -> list[OmeField]:
    """Each file of a set may repeat the whole plate: a field counts as lost if no file describes its image."""
    present = {(field.well, field.index) for field in fields if field.image is not None}
    lost = {(field.well, field.index): field for field in fields if field.image is None}
    kept = [field for field in fields if field.image is not None]
    return [*kept, *(field for place, field in lost.items() if place not in present)]


def number_sites(fields: Sequence[OmeField]) -> None:
    """Count the fields of each well of one plate from 1, in the order of their numbers in the source.

    Where files of one field each do not number them, the names of the files do. Fields that still share a number
    keep sharing it: one of them is a copy, which preflight will say.
    """
    wells: dict[str, list[OmeField]] = defaultdict(list)
    for field in fields:
        wells[field.well].append(field)
    for own in wells.values():
        ranks = {index: rank for rank, index in enumerate(sorted({field.index for field in own}), start=1)}
        names = {field.named for field in own}
        is_named = len(ranks) < len(own) and None not in names and len(names) == len(own)
        without_plate = not own[0].holder.document.plates and None not in names
        for field in own:
            field.site = (field.named or 0) if is_named or without_plate else ranks[field.index]


def well_in(text: str) -> str | None:
    """Find the only well that a name tells; None if it tells none or several."""
    stem = _SUFFIX.sub("", text)
    found = {parse_well(match[1]): match[1] for match in _WELL.finditer(stem)}
    sure = [well for well, spelt in found.items() if not _NO_WELL.match(spelt)]
    wells = sure or list(found)
    return wells[0] if len(wells) == 1 else None


def field_in(text: str) -> int | None:
    """Find the number of the field in a name such as ``B03_f01.ome.tif``; None if there is none or several."""
    found = {int(match[1]) for match in _FIELD.finditer(_SUFFIX.sub("", text))}
    return found.pop() if len(found) == 1 else None


@dataclass(frozen=True)
class Channels:
    """Keys of channels for a whole plate.

    Attributes:
        by_name: A channel is known by its name; else by its number within its image, from 1.
        stains: Key to name.
        wavelengths: Key to wavelengths.
    """

    by_name: bool
    stains: Mapping[str, str]
    wavelengths: Mapping[str, Wavelengths]

    def key(self, image: OmeImage, number: int) -> str:
        return image.channels[number] if self.by_name else str(number + 1)


def name_images_channels(images: Sequence[OmeImage]) -> Channels:
    """Find keys under which each channel means the same stain in all images.

    Raises:
        InputError: Neither numbers nor names do: a number has several names, and some channels have none.
    """
    names: dict[int, set[str]] = defaultdict(set)
    for image in images:
        for number, name in enumerate(image.channels):
            names[number].add(name)
    clash = next((number for number, given in names.items() if len(given) > 1), None)
    by_name = clash is not None
    if by_name and any(
        "" in image.channels or len(set(image.channels)) < len(image.channels) for image in images
    ):
        found = f"channel {(clash or 0) + 1} is called {sorted(names[clash or 0])} in different images"
        raise InputError(
            found, hint="name the channels of all images alike, or describe the files with --pattern"
        )
    channels = Channels(by_name, {}, {})
    stains: dict[str, str] = {}
    wavelengths: dict[str, Wavelengths] = {}
    for image in images:
        for number, name in enumerate(image.channels):
            stains.setdefault(channels.key(image, number), name)
            wavelengths.setdefault(channels.key(image, number), image.wavelengths[number])
    given = {key: lengths for key, lengths in wavelengths.items() if lengths != Wavelengths()}
    return Channels(by_name, {key: name for key, name in stains.items() if name}, given)


def planes_of(field: OmeField, channels: Channels) -> Iterator[Plane]:
    """Yield the planes of one field; z and time points are numbered from 0, as in the source.

    Raises:
        InputError: A page is said to lie outside of the folder.
    """
    if field.image is None:
        return
    paths = {block: file_of(block, field.holder) for block in field.image.blocks}
    key = FieldKey(field.well, field.site)
    for block, page, place in field.image.planes():
        channel = channels.key(field.image, place["C"])
        yield Plane(paths[block], key, channel, z=place["Z"], t=place["T"], part=(page,))


def _by_names(holder: Holder) -> list[OmeField]:
    """Fields of a document without plate: the name of its file tells the well, or each image's own name does."""
    images = list(holder.document.images.values())
    fields = []
    for index, image in enumerate(images):
        texts = [holder.path.name, image.name] if len(images) == 1 else [image.name, holder.path.name]
        well = next(filter(None, map(well_in, texts)), None)
        if well is None:
            found = f"{holder.path} has no plate in its OME-XML, and neither its name nor {image.name!r} tells a well"
            raise InputError(found, hint="describe the names: --pattern '{well}_{field}.ome.tif'")
        named = next((number for number in map(field_in, texts) if number is not None), None)
        fields.append(OmeField(holder, image, well, index, named))
    counts = Counter(field.well for field in fields)
    for field in fields:
        if field.named is None and counts[field.well] == 1:
            field.index = 0
    return fields
