"""OME-TIFF plates: OME-XML in the first page, or in a companion file, of one file per plate, well, field or plane."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.locate import refuse_shared
from cellvim.ingest.readers.ome_tiff.files import (
    OmeFiles,
    collect,
    file_of,
    is_companion,
    starts_with_ome,
)
from cellvim.ingest.readers.ome_tiff.plate import (
    OmeField,
    fields_of,
    name_images_channels,
    number_sites,
    planes_of,
    without_twins,
)
from cellvim.ingest.readers.ome_tiff.xml import OME_XML_IN, OmeImage
from cellvim.ingest.readers.pattern_hint import suggest_pattern
from cellvim.ingest.readers.plate_names import tell_apart
from cellvim.ingest.sources import MOST_FILES, Plane, Source, SourcePlate, some

_GLANCES = 4
# The directory of a page alone, with the four tags that it cannot do without.
_PAGE_BYTES = 2 + 4 * 12 + 4
_MOST_LOST = 500_000


class OmeTiffReader:
    """Reads what Bio-Formats and its relatives write."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        companions = [path for path in source.files(frozenset({".ome", ".xml"})) if is_companion(path)]
        images = source.files()[:_GLANCES]
        if source.path.is_file():
            companions, images = [path for path in [source.path] if is_companion(path)], [source.path]
        if companions:
            return f"OME-TIFF: found {companions[0].name}"
        found = next((path for path in images if starts_with_ome(path)), None)
        return None if found is None else f"OME-TIFF: found OME-XML in {found.name}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        files = collect(source)
        if not files.holders:
            found = f"{source.path} holds no TIFF with OME-XML (images: {some([p.name for p in files.strangers])})"
            raise InputError(found, hint="describe the names with --pattern")
        evidence = self.recognise(source, settings) or f"OME-TIFF: found {files.holders[0].path.name}"
        # By name; plates without one are told apart by their folders.
        fields: dict[tuple[str, Path], list[OmeField]] = {}
        homeless: list[str] = []
        for holder in files.holders:
            own, without = fields_of(holder)
            homeless += without
            for name, found_fields in own.items():
                key = (name, source.folder if name else holder.path.parent)
                fields.setdefault(key, []).extend(found_fields)
        notes = _notes(files, homeless)
        names = tell_apart([(folder, name or folder.resolve().name) for name, folder in fields])
        plates = [
            _plate(own or name, fields[own, folder], source, evidence, notes, safe=name)
            for name, (own, folder) in sorted(zip(names, fields, strict=True))
        ]
        plates = [plate for plate in plates if plate.planes]
        if not plates:
            found = f"the OME-XML of {files.holders[0].path} describes no planes in wells"
            raise InputError(found, hint="describe the names with --pattern")
        refuse_shared({plate.name: plate.planes for plate in plates}, files.holders[0].path)
        return plates


def _plate(
    name: str, fields: Sequence[OmeField], source: Source, evidence: str, notes: Sequence[str], *, safe: str
) -> SourcePlate:
    fields = without_twins(fields)
    number_sites(fields)
    images = [field.image for field in fields if field.image is not None]
    channels = name_images_channels(images)
    _refuse_impossible(fields, name)
    planes: list[Plane] = []
    for field in fields:
        planes += planes_of(field, channels)
        if len(planes) > MOST_FILES:
            found = f"plate {name} names more than {MOST_FILES:,} planes"
            raise InputError(found, hint="ingest one plate at a time")
    if not any(field.holder.document.plates for field in fields):
        _refuse_rivals(planes, source)
    sizes = {image.pixel_size_um for image in images}
    lost = [f"{field.well} field {field.site}" for field in fields if field.image is None]
    own_notes = [f"{len(lost)} fields of the plate have no image: {some(lost)}"] if lost else []
    own_notes += (
        [f"pixel sizes differ between images: {some(sorted(map(str, sizes)))}"] if len(sizes) > 1 else []
    )
    return SourcePlate(
        name=safe,
        folder=source.folder,
        evidence=evidence,
        planes=tuple(planes),
        stains=channels.stains,
        pixel_size_um=sizes.pop() if len(sizes) == 1 else None,
        declared_wells=tuple(dict.fromkeys(field.well for field in fields)),
        notes=(*own_notes, *_unnamed_planes(images), *notes),
        wavelengths=channels.wavelengths,
        acquired=min(filter(None, (image.acquired for image in images)), default=None),
        barcode=next(filter(None, (field.barcode for field in fields)), name),
        described_by=tuple(
            sorted({field.holder.path for field in fields if is_companion(field.holder.path)})
        ),
        descriptions={
            f"{OME_XML_IN}{field.holder.path}": field.holder.sha256
            for field in fields
            if not is_companion(field.holder.path)
        },
    )


def _refuse_impossible(fields: Sequence[OmeField], name: str) -> None:
    """Refuse more pages than files can hold before a plane is made of each: claiming millions takes one line."""
    pages: Counter[Path] = Counter()
    for field in fields:
        for block in field.image.blocks if field.image else ():
            pages[file_of(block, field.holder)] += block.count
    lost = 0
    for path, count in pages.items():
        if not path.is_file():
            lost += count
        elif count * _PAGE_BYTES > (size := path.stat().st_size):
            found = f"{path} is said to hold {count:,} pages, in {size:,} bytes"
            raise InputError(found, hint="copy it again, or write the OME-TIFF again")
    if lost > _MOST_LOST:
        found = f"plate {name} names {lost:,} planes in files that are not there"
        raise InputError(found, hint="copy all files of the plate")


def _refuse_rivals(planes: Sequence[Plane], source: Source) -> None:
    """Without a plate, names may tell more than wells and fields: what nobody explained must not look doubled."""
    first: dict[tuple[object, ...], Plane] = {}
    for plane in planes:
        other = first.setdefault((plane.field, plane.channel, plane.z, plane.t), plane)
        if other.path != plane.path:
            names = f"{other.path.name} and {plane.path.name}"
            guess = suggest_pattern([path.relative_to(source.folder) for path in source.files()])
            found = (
                f"{names} both hold {plane.field} channel {plane.channel}, by their names and their OME-XML"
            )
            hint = f"say what the names mean: --pattern '{guess or '{well}_{field}_{channel}.ome.tif'}'"
            raise InputError(found, hint=hint)


def _unnamed_planes(images: Sequence[OmeImage]) -> list[str]:
    """An image may claim more planes than its pages are said to hold."""
    short = []
    for image in images:
        claimed = image.sizes["C"] * image.sizes["Z"] * image.sizes["T"]
        if (named := sum(block.count for block in image.blocks)) < claimed:
            short.append(f"{image.name} ({named} of {claimed})")
    return [f"{len(short)} images have fewer pages than planes: {some(short)}"] if short else []


def _notes(files: OmeFiles, homeless: Sequence[str]) -> list[str]:
    notes = []
    if homeless:
        notes.append(f"{len(homeless)} images belong to no well: {some(homeless)}")
    if files.strangers:
        names = [path.name for path in itertools.islice(files.strangers, 4)]
        notes.append(f"{len(files.strangers)} images without OME-XML are not read: {some(names)}")
    return notes
