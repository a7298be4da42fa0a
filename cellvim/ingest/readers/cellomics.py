"""Cellomics and ArrayScan: ``AS_09125_050116030001_D03f00d0.tif`` is plate, well D03, field 00, channel 0.

Names are all there is: exports carry no index, and their TIFFs no size of a pixel. Of the twelve digits at the end
of a plate's name the first six look like a date; no document of the vendor says so, and so none is read from them.

Source:
    The names that Bio-Formats (CellomicsReader) and microscopium accept: ``d`` is a channel's image, ``o`` the mask of
    the objects found in it, or an image where there is no ``d`` at all; field and channel may be absent.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.sources import IMAGE_SUFFIXES, Plane, Source, SourcePlate, some
from cellvim.store import FieldKey, parse_well, safe_name
from cellvim.store.naming import COLUMN_EXPRESSION, ROW_EXPRESSION

NATIVE_SUFFIXES = frozenset({".c01", ".dib"})
# The longest plate name that fits: the well is the last part.
_NAME = re.compile(
    rf"(?P<plate>.+)_(?P<well>{ROW_EXPRESSION}{COLUMN_EXPRESSION})(?:f(?P<site>\d{{1,5}}))?"
    r"(?P<kind>[do])(?P<channel>\d{1,3})(?P<rest>[^.]*)\.(?:tiff?|c01|dib)",
    re.IGNORECASE | re.ASCII,
)
_BARCODE = re.compile(r"\d{12}$", re.ASCII)


@dataclass
class _Found:
    """What one plate has, by what the names say."""

    names: list[str] = field(default_factory=list)
    images: list[Plane] = field(default_factory=list)
    masks: list[Plane] = field(default_factory=list)
    derived: list[Path] = field(default_factory=list)


class CellomicsReader:
    """Reads folders of TIFFs exported from an ArrayScan or CellInsight."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        for suffixes in (IMAGE_SUFFIXES, NATIVE_SUFFIXES):
            matches = (_NAME.fullmatch(path.name) for path in source.files(suffixes))
            named = next((match for match in matches if match and not match["rest"]), None)
            if named is not None:
                return f"Cellomics: found names such as {named[0]}"
        return None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        evidence = self.recognise(source, settings) or "Cellomics: as told"
        plates: dict[str, _Found] = defaultdict(_Found)
        others = []
        for path in source.files():
            match = _NAME.fullmatch(path.name)
            if match is None:
                others.append(path.name)
            else:
                _sort_in(plates[match["plate"].upper()], path, match)
        native = [path.name for path in source.files(NATIVE_SUFFIXES) if _NAME.fullmatch(path.name)]
        usable = [found for _, found in sorted(plates.items()) if found.names]
        if not usable:
            raise _nothing(source, native)
        others += [path.name for found in plates.values() if not found.names for path in found.derived]
        notes = [*_count(others, "images have other names"), *_count(native, "native files are not read")]
        return [_plate(found, source.folder, evidence, notes, wanted=settings.plate) for found in usable]


def _sort_in(found: _Found, path: Path, match: re.Match[str]) -> None:
    if match["rest"]:
        found.derived.append(path)
        return
    found.names.append(match["plate"])
    key = FieldKey(parse_well(match["well"]), int(match["site"] or 0))
    planes = found.images if match["kind"].lower() == "d" else found.masks
    planes.append(Plane(path, key, str(int(match["channel"]))))


def _plate(
    found: _Found, folder: Path, evidence: str, notes: Sequence[str], *, wanted: str | None
) -> SourcePlate:
    kind = "d" if found.images else "o"
    planes = found.images or found.masks
    own = _count([path.name for path in found.derived], "images are made from others, and left out")
    if found.images:
        own += _count([plane.path.name for plane in found.masks], "masks of objects are left out")
    else:
        own.append("all images are named o, not d: they may be masks of objects")
    name = found.names[0]
    barcode = _BARCODE.search(name)
    return SourcePlate(
        name=_safe(name, wanted),
        folder=folder,
        evidence=evidence,
        planes=tuple(planes),
        stains={plane.channel: f"{kind}{plane.channel}" for plane in planes},
        notes=(*own, *notes),
        barcode=barcode[0] if barcode else name,
    )


def _safe(name: str, wanted: str | None) -> str:
    """The plate's name; what `--plate` says where it has no letter that is safe in a file name."""
    try:
        return safe_name(name)
    except InputError:
        if wanted is None:
            raise
        return safe_name(wanted)


def _nothing(source: Source, native: Sequence[str]) -> InputError:
    if native:
        found = (
            f"{source.folder}: {len(native)} images in the instrument's own format ({some(native)}), no TIFFs"
        )
        return InputError(
            found, hint="export them as TIFF with the software of the instrument, or with Bio-Formats"
        )
    names = some([path.name for path in source.files()])
    found = f"{source.folder} holds no images such as PLATE_A01f00d0.tif (images: {names})"
    return InputError(found, hint="describe the names with --pattern")


def _count(names: Sequence[str], what: str) -> list[str]:
    return [f"{len(names)} {what}: {some(names)}"] if names else []
