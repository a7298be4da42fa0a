"""ImageXpress / MetaXpress folders: ``PLATE_B02_s1_w1GUID.tif``, TimePoint_n, ZStep_n, PLATE.HTD."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.readers.imagexpress.header import sample
from cellvim.ingest.readers.imagexpress.plan import compare, parse_plan
from cellvim.ingest.readers.plate_names import tell_apart
from cellvim.ingest.sources import Plane, Source, SourcePlate, natural, some
from cellvim.store import FieldKey, parse_well

# The shortest plate name that fits, as `_s12` and `_w11` look like wells too: lower-case s and w are no rows.
_WELL = r"(?-i:A[A-F]|a[a-f]|[A-Za-rt-vx-z])(?:0[1-9]|[1-3]\d|4[0-8])|(?-i:A[A-F]|[A-Z])[1-9]"
_NAME = re.compile(
    rf"(?:(?P<plate>.+?)(?:_t(?P<before>\d{{1,5}}))?_)?(?P<well>{_WELL})"
    r"(?:_s(?P<site>\d{1,5}))?(?:_w(?P<wave>\d{1,2}))?(?:_z(?P<z>\d{1,5}))?(?:_t(?P<t>\d{1,5}))?"
    r"(?P<thumbnail>_thumb)?"
    r"(?P<guid>_?\[?[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}\]?)?\.tiff?",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"(?P<kind>TimePoint|ZStep)_?(?P<number>\d{1,6})", re.IGNORECASE)
# As the Broad Institute publishes plates, for example BBBC022_v1_images_20585w1.
_WAVE_FOLDER = re.compile(r"(?P<plate>.*[^\W_])[ _-]?w(?P<wave>\d{1,2})", re.IGNORECASE)
_APPENDED = re.compile(r"_(?:Plate_)?[\d._-]+", re.IGNORECASE)


@dataclass
class _Found:
    """The images of one plate, as they come up."""

    planes: list[Plane] = field(default_factory=list)
    thumbnails: int = 0
    strangers: list[str] = field(default_factory=list)


class ImageXpressReader:
    """Reads folders written or exported by MetaXpress."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        plans = source.files(frozenset({".htd"}))
        if plans:
            return f"ImageXpress: found {plans[0].name}"
        named = next((path for path in source.files() if _is_unmistakable(path)), None)
        return None if named is None else f"ImageXpress: found names such as {named.name}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        evidence = self.recognise(source, settings) or "ImageXpress: as told"
        plates = {key: found for key, found in _find_images(source).items() if found.planes}
        if not plates:
            names = [path.name for path in source.files()]
            found = (
                f"{source.folder} holds no ImageXpress images such as PLATE_B02_s1_w1.tif "
                f"(images: {some(names)})"
            )
            raise InputError(found, hint="describe the names with --pattern")
        keys = sorted(plates)
        names = tell_apart([(root, _own_name(root, prefix)) for root, prefix in keys])
        plans = source.files(frozenset({".htd"}))
        return [
            _plate(
                source.folder, key, name, plates[key], evidence=evidence, described=_find_plan(plans, *key)
            )
            for key, name in zip(keys, names, strict=True)
        ]


def _is_unmistakable(path: Path) -> bool:
    """A wavelength, a GUID, or a folder of MetaXpress: a well alone could be anybody's."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return False
    return bool(match["wave"] or match["guid"] or _FOLDER.fullmatch(path.parent.name))


def _find_images(source: Source) -> dict[tuple[Path, str], _Found]:
    """List the images by plate: its folder, and the name that its files begin with."""
    plates: dict[tuple[Path, str], _Found] = {}
    places: dict[Path, tuple[Path, dict[str, int]]] = {}
    fields: dict[tuple[str, int], FieldKey] = {}
    strangers: list[Path] = []
    for path in source.files():
        match = _NAME.fullmatch(path.name)
        if match is None:
            strangers.append(path)
            continue
        if path.parent not in places:
            places[path.parent] = _place(path.parent, source.folder)
        root, numbers = places[path.parent]
        found = plates.setdefault((root, match["plate"] or ""), _Found())
        if match["thumbnail"]:
            found.thumbnails += 1
            continue
        key = FieldKey(parse_well(match["well"]), int(match["site"] or 1))
        key = fields.setdefault((key.well, key.site), key)
        found.planes.append(_plane(path, key, match, numbers))
    for (root, _), found in plates.items():
        found.strangers = [path.name for path in strangers if path.is_relative_to(root)]
    return _join_wavelengths(plates)


def _join_wavelengths(plates: Mapping[tuple[Path, str], _Found]) -> dict[tuple[Path, str], _Found]:
    """Put together a plate of which every wavelength has a folder of its own, named after it."""
    joined: dict[tuple[Path, str], dict[tuple[Path, str], _Found]] = {}
    for (root, prefix), found in plates.items():
        match = _WAVE_FOLDER.fullmatch(root.name)
        is_own = match is not None and {plane.channel for plane in found.planes} == {str(int(match["wave"]))}
        whole = (root.with_name(match["plate"]), prefix) if match and is_own else (root, prefix)
        joined.setdefault(whole, {})[root, prefix] = found
    result: dict[tuple[Path, str], _Found] = {}
    for whole, parts in joined.items():
        if len(parts) == 1:
            result |= parts
            continue
        result[whole] = _Found(
            [plane for part in parts.values() for plane in part.planes],
            sum(part.thumbnails for part in parts.values()),
            [name for part in parts.values() for name in part.strangers],
        )
    return result


def _place(folder: Path, source: Path) -> tuple[Path, dict[str, int]]:
    """Find the plate's own folder, above TimePoint_n and ZStep_n, and the numbers of these."""
    numbers: dict[str, int] = {}
    root = folder
    while root != source and (level := _FOLDER.fullmatch(root.name)) is not None:
        numbers.setdefault(level["kind"].lower(), int(level["number"]))
        root = root.parent
    return root, numbers


def _plane(path: Path, key: FieldKey, match: re.Match[str], numbers: dict[str, int]) -> Plane:
    channel = str(int(match["wave"] or 1))
    step = numbers.get("zstep")
    # ZStep_0 holds the instrument's projection, never a plane of the stack.
    z = (step or None) if match["z"] is None else int(match["z"])
    named = match["t"] or match["before"]
    t = numbers.get("timepoint", int(named) if named else None)
    return Plane(path, key, channel, z=z, t=t, is_projection=z is None and step == 0)


def _mark_projections(planes: Sequence[Plane]) -> tuple[Plane, ...]:
    """Where there are ZStep folders, images outside of them are the instrument's projections."""
    if all(plane.z is None for plane in planes):
        return tuple(planes)
    return tuple(
        plane
        if plane.z is not None
        else Plane(plane.path, plane.field, plane.channel, t=plane.t, is_projection=True)
        for plane in planes
    )


def _own_name(root: Path, prefix: str) -> str:
    # MetaXpress calls exports PLATE_Plate_1234: the folder tells apart what the prefix does not.
    folder = root.resolve().name
    return folder if not prefix or folder.startswith(prefix) else prefix


def _find_plan(plans: Sequence[Path], root: Path, prefix: str) -> tuple[Path, ...]:
    """MetaXpress copies the .HTD file of a plate into every folder: the outermost is taken."""
    below = sorted((path for path in plans if path.is_relative_to(root)), key=lambda path: len(path.parts))
    same = [path for path in below if path.stem.lower() == prefix.lower()]
    only = below if len({path.name.lower() for path in below}) == 1 else []
    return tuple((same or only)[:1])


def _plate(
    folder: Path,
    key: tuple[Path, str],
    name: str,
    found: _Found,
    *,
    evidence: str,
    described: tuple[Path, ...],
) -> SourcePlate:
    plan = parse_plan(described[0]) if described else None
    planes = _mark_projections(found.planes)
    headers = sample(planes)
    numbered = {plane.channel: f"w{plane.channel}" for plane in planes}
    stains = numbered | headers.stains | (dict(plan.stains) if plan else {})
    size, notes = headers.pixel_size_um()
    notes = [
        *(compare(plan, planes) if plan else []),
        *_ragged_times(planes, stains),
        *headers.copies(stains),
        *notes,
    ]
    if found.strangers:
        notes.append(
            f"{len(found.strangers)} images are not named as MetaXpress does: {some(found.strangers)}"
        )
    return SourcePlate(
        name=name,
        folder=folder,
        evidence=evidence,
        planes=planes,
        stains=stains,
        pixel_size_um=size,
        declared_wells=plan.wells if plan else (),
        notes=tuple(notes),
        wavelengths=headers.wavelengths,
        acquired=headers.acquired,
        barcode=_barcode(name, key[1]),
        thumbnails=found.thumbnails,
        described_by=described,
    )


def _ragged_times(planes: Sequence[Plane], stains: Mapping[str, str]) -> list[str]:
    """Name channels without images at some time points: of a chosen time point they are simply absent."""
    times: dict[str, set[int]] = {}
    for plane in planes:
        if plane.t is not None:
            times.setdefault(plane.channel, set()).add(plane.t)
    every = set().union(*times.values())
    return [
        f"{stains[channel]} has images at time points {some(sorted(found), 6)} only"
        for channel, found in sorted(times.items(), key=lambda pair: natural(pair[0]))
        if found != every
    ]


def _barcode(name: str, prefix: str) -> str | None:
    """The name without the number that MetaXpress, or we, appended to tell acquisitions apart."""
    is_numbered = name.startswith(prefix) and _APPENDED.fullmatch(name[len(prefix) :]) is not None
    return prefix if prefix and is_numbered else None
