"""ImageXpress / MetaXpress folders: ``PLATE_B02_s1_w1GUID.tif``, TimePoint_n, ZStep_n, PLATE.HTD."""

import csv
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.sources import Plane, Source, SourcePlate, natural, some
from cellvim.ingest.tiff import DamagedImageError, read_header
from cellvim.store import FieldKey, parse_well, safe_name, well_name

# The shortest plate name that fits, as `_s12` and `_w11` look like wells too.
_NAME = re.compile(
    r"(?P<plate>.+?)_(?P<well>(?:A[A-F]|[A-Z])(?:0[1-9]|[1-3]\d|4[0-8]))"
    r"(?:_s(?P<site>\d{1,5}))?(?:_w(?P<wave>\d{1,2}))?(?P<thumbnail>_thumb)?"
    r"(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?\.tiff?",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"(?P<kind>TimePoint|ZStep)_(?P<number>\d{1,6})", re.IGNORECASE)
_PROPERTY = r'id="{}"[^>]*?value="([^"]*)"'
_MOST_HTD_BYTES = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What a .HTD file says was to be acquired, which is often more than there is."""

    name: str
    stains: Mapping[str, str]
    wells: tuple[str, ...]
    z_steps: int
    timepoints: int


class ImageXpressReader:
    """Reads folders written or exported by MetaXpress."""

    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        plans = source.files(frozenset({".htd"}))
        if plans:
            return f"ImageXpress: found {plans[0].name}"
        named = next((path for path in source.files() if _is_unmistakable(path)), None)
        return None if named is None else f"ImageXpress: found names such as {named.name}"

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        folder = source.folder
        evidence = self.recognise(source, settings) or "ImageXpress: as told"
        plates: dict[tuple[Path, str], list[Plane]] = {}
        thumbnails = 0
        for path in source.files():
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            if match["thumbnail"]:
                thumbnails += 1
                continue
            root, plane = _place(path, folder, match)
            plates.setdefault((root, match["plate"]), []).append(plane)
        if not plates:
            names = [path.name for path in source.files()]
            found = (
                f"{folder} holds no ImageXpress images such as PLATE_B02_s1_w1.tif (images: {some(names)})"
            )
            raise InputError(found, hint="describe the names with --pattern")
        return [
            _plate(folder, root, prefix, _mark_projections(planes), evidence=evidence, thumbnails=thumbnails)
            for (root, prefix), planes in sorted(plates.items())
        ]


def parse_plan(path: Path) -> Plan:
    """Read a .HTD file. Its text is in whatever code page the instrument's computer had.

    Raises:
        InputError: The file is not a .HTD file.
    """
    content = path.read_bytes()[:_MOST_HTD_BYTES].decode("latin-1")
    rows = csv.reader(content.splitlines(), skipinitialspace=True)
    entries = {row[0].strip().lower(): [value.strip() for value in row[1:]] for row in rows if row}
    if "htsinfofile" not in entries:
        found = f"{path} is not a .HTD file of MetaXpress"
        raise InputError(found, hint="remove it, or pass --source pattern and --pattern")
    stains = {}
    for name, values in entries.items():
        if name.startswith("wavename") and name[8:].isdigit() and values and values[0]:
            stains[name[8:]] = values[0]
    wells = [
        well_name(int(name[14:]), column)
        for name, values in entries.items()
        if name.startswith("wellsselection") and name[14:].isdigit()
        for column, value in enumerate(values, start=1)
        if value.upper() == "TRUE"
    ]
    return Plan(path.name, stains, tuple(wells), _number(entries, "zsteps"), _number(entries, "timepoints"))


def _is_unmistakable(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    return match is not None and match["wave"] is not None


def _place(path: Path, folder: Path, match: re.Match[str]) -> tuple[Path, Plane]:
    """Find the plate's own folder, above TimePoint_n and ZStep_n, and the plane's place in the plate."""
    numbers: dict[str, int] = {}
    root = path.parent
    while root != folder and (level := _FOLDER.fullmatch(root.name)) is not None:
        numbers.setdefault(level["kind"].lower(), int(level["number"]))
        root = root.parent
    z = numbers.get("zstep")
    key = FieldKey(parse_well(match["well"]), int(match["site"] or 1))
    channel = str(int(match["wave"] or 1))
    # ZStep_0 holds the instrument's projection, never a plane of the stack.
    return root, Plane(path, key, channel, z=z or None, t=numbers.get("timepoint"), is_projection=z == 0)


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


def _plate(
    folder: Path,
    root: Path,
    prefix: str,
    planes: tuple[Plane, ...],
    *,
    evidence: str,
    thumbnails: int,
) -> SourcePlate:
    plan = _find_plan(root, prefix)
    first = {plane.channel: plane.path for plane in reversed(planes)}
    descriptions = {channel: _description(path) for channel, path in first.items()}
    stains = dict(plan.stains) if plan else {}
    for channel, description in descriptions.items():
        stains.setdefault(
            channel, _property(description, "image-name").removeprefix("Copy of ") or f"w{channel}"
        )
    # MetaXpress calls exports PLATE_Plate_1234: the folder tells apart what the prefix does not.
    folder_name = root.resolve().name
    notes = _notes(plan, planes) if plan else []
    if thumbnails:
        notes.append(f"{thumbnails} thumbnails skipped")
    return SourcePlate(
        name=safe_name(folder_name if folder_name.startswith(prefix) else prefix),
        folder=folder,
        evidence=evidence,
        planes=planes,
        stains=stains,
        pixel_size_um=_pixel_size_um(next(iter(descriptions.values()))),
        declared_wells=plan.wells if plan else (),
        notes=tuple(notes),
    )


def _find_plan(root: Path, prefix: str) -> Plan | None:
    plans = [path for path in sorted(root.iterdir()) if path.suffix.lower() == ".htd"]
    same = [path for path in plans if path.stem.lower() == prefix.lower()]
    chosen = (same or (plans if len(plans) == 1 else []))[:1]
    return parse_plan(chosen[0]) if chosen else None


def _notes(plan: Plan, planes: Sequence[Plane]) -> list[str]:
    present = {plane.channel for plane in planes}
    absent = [f"{key} ({stain})" for key, stain in plan.stains.items() if key not in present]
    counts = {
        "z steps": (plan.z_steps, len({plane.z for plane in planes if plane.z is not None})),
        "time points": (plan.timepoints, len({plane.t for plane in planes})),
    }
    notes = [
        f"{plan.name} declares {declared} {what}, found {found}"
        for what, (declared, found) in counts.items()
        if declared > 1 and declared != found
    ]
    if absent:
        absent.sort(key=natural)
        notes.insert(0, f"{plan.name} declares wavelengths without any file: {', '.join(absent)}")
    return notes


def _number(entries: Mapping[str, list[str]], name: str) -> int:
    value = next(iter(entries.get(name, [])), "")
    return int(value) if value.isdigit() else 0


def _description(path: Path) -> str:
    try:
        return read_header(path).description
    except DamagedImageError:
        # Preflight reports the damage; the description is a courtesy.
        return ""


def _property(description: str, name: str) -> str:
    match = re.search(_PROPERTY.format(name), description)
    return html.unescape(match[1]).strip() if match else ""


def _pixel_size_um(description: str) -> float | None:
    if _property(description, "spatial-calibration-units").lower() not in {"um", "µm", "micron", "microns"}:
        return None
    try:
        size = float(_property(description, "spatial-calibration-x"))
    except ValueError:
        return None
    return size if 0 < size < 1e3 else None
