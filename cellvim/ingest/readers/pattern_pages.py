"""Several pages per file whose name is described by a pattern: OME-XML says which plane each page is."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.images.tiff import DamagedImageError, read_header
from cellvim.ingest.readers.ome_tiff.files import Holder, file_of, read_document
from cellvim.ingest.readers.ome_tiff.plate import name_images_channels
from cellvim.ingest.readers.ome_tiff.xml import OmeImage
from cellvim.ingest.sources import Plane, SourcePlate

_HINT = "write one plane per file, or OME-TIFF"
# Dimension of OME-XML, and the field of a pattern that says the same.
_AXES = {"C": "channel", "Z": "z", "T": "t"}


def with_pages(plate: SourcePlate, told: frozenset[str]) -> SourcePlate:
    """Take each page of its files as a plane of its own, where the first file has several.

    Args:
        plate: One plane per file, as the names say.
        told: The fields that the pattern names.

    Raises:
        InputError: The pages are of no OME-TIFF, or say again what the names say already.
    """
    first = plate.planes[0].path
    if _is_single(first):
        return plate
    if read_document(first) is None:
        found = f"{first} holds several pages, and no OME-XML that says what they are"
        raise InputError(found, hint=_HINT)
    paths = list(dict.fromkeys(plane.path for plane in plate.planes))
    with ThreadPoolExecutor(2) as pool:
        holders = dict(zip(paths, pool.map(_read_one, paths), strict=True))
    images = {path: _only_image(holder) for path, holder in holders.items() if holder is not None}
    channels = name_images_channels(list(images.values()))
    pages = {path: _own_pages(image, holders[path], told) for path, image in images.items()}
    planes: list[Plane] = []
    for plane in plate.planes:
        if plane.path not in pages:
            planes.append(plane)
            continue
        for page, place in pages[plane.path]:
            channel = plane.channel if "channel" in told else channels.key(images[plane.path], place["C"])
            z, t = plane.z if "z" in told else place["Z"], plane.t if "t" in told else place["T"]
            planes.append(replace(plane, channel=channel, z=z, t=t, part=(page,)))
    sizes = {image.pixel_size_um for image in images.values()}
    return replace(
        plate,
        planes=tuple(planes),
        stains={} if "channel" in told else channels.stains,
        wavelengths={} if "channel" in told else channels.wavelengths,
        pixel_size_um=sizes.pop() if len(sizes) == 1 else None,
        acquired=min(filter(None, (image.acquired for image in images.values())), default=None),
        evidence=f"{plate.evidence}, each with the pages that its OME-XML describes",
    )


def _is_single(path: Path) -> bool:
    """Whether a file has one page, or cannot be read: that is for preflight to say."""
    try:
        read_header(path)
    except DamagedImageError:
        try:
            read_header(path, 1)
        except DamagedImageError as error:
            return "has no page" in error.found or _is_unreadable(path)
        return False
    return True


def _is_unreadable(path: Path) -> bool:
    try:
        read_header(path, 0)
    except DamagedImageError:
        return True
    return False


def _read_one(path: Path) -> Holder | None:
    document = read_document(path)
    return None if document is None else Holder(path, document)


def _only_image(holder: Holder) -> OmeImage:
    images: Sequence[OmeImage] = list(holder.document.images.values())
    if len(images) != 1:
        found = f"{holder.path} holds {len(images)} images, expected one field per file"
        raise InputError(found, hint="leave --pattern out: OME-TIFF plates tell their wells themselves")
    return images[0]


def _own_pages(
    image: OmeImage, holder: Holder | None, told: frozenset[str]
) -> list[tuple[int, dict[str, int]]]:
    """Pages of one file of a set, and their planes; each file of the set may describe all the others' too."""
    if holder is None:
        return []
    pages = [(page, place) for block, page, place in image.planes() if file_of(block, holder) == holder.path]
    if not pages:
        found = f"the OME-XML of {holder.path} describes no page of that file"
        raise InputError(found, hint=_HINT)
    for axis, name in _AXES.items():
        if name in told and (count := len({place[axis] for _, place in pages})) > 1:
            found = f"{holder.path} holds {count} planes along {axis}, and the pattern names one {name}"
            raise InputError(found, hint=f"put {{}} in the place of {{{name}}}")
    return pages
