"""The .HTD file of MetaXpress: what was to be acquired, which is often more than there is."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import InputError
from cellvim.ingest.sources import Plane, natural, some
from cellvim.store import well_name

_MOST_BYTES = 1 << 20
_HINT = "remove it, or pass --source pattern and --pattern"


@dataclass(frozen=True)
class Plan:
    """What a .HTD file says.

    Attributes:
        name: Of the file.
        stains: Wavelength number to name.
        uncollected: Wavelength numbers that the plan itself leaves out.
        wells: Selected wells.
        sites: Selected sites per well; 0 if it does not say.
        z_steps: 0 or 1 where there is no stack.
    """

    name: str
    stains: Mapping[str, str]
    uncollected: frozenset[str]
    wells: tuple[str, ...]
    sites: int
    z_steps: int
    timepoints: int


def parse_plan(path: Path) -> Plan:
    """Read a .HTD file. Its text is in whatever code page the instrument's computer had.

    Raises:
        InputError: The file is not a .HTD file.
    """
    entries = _read_entries(path)
    numbers = {name: _number(entries, name) for name in ("zsteps", "timepoints", "nwavelengths")}
    stains = {str(key): values[0] for key, values in _numbered(entries, "wavename") if values and values[0]}
    beyond = {key for key in stains if 0 < numbers["nwavelengths"] < int(key)}
    unwanted = {str(key) for key, values in _numbered(entries, "wavecollect") if values[:1] == ["0"]}
    sites = [value for _, values in _numbered(entries, "siteselection") for value in values]
    return Plan(
        name=path.name,
        stains=stains,
        uncollected=frozenset(beyond | unwanted),
        wells=_wells(entries, path),
        sites=sum(_is_true(value) for value in sites),
        z_steps=numbers["zsteps"],
        timepoints=numbers["timepoints"],
    )


def compare(plan: Plan, planes: Sequence[Plane]) -> list[str]:
    """Name what the plan has and the images lack, or the other way round: harmless, but worth a line."""
    present = {plane.channel for plane in planes}
    absent = [key for key in sorted(plan.stains, key=natural) if key not in present | plan.uncollected]
    notes = []
    if absent:
        named = ", ".join(f"{key} ({plan.stains[key]})" for key in absent)
        notes.append(f"{plan.name} declares wavelengths without any file: {named}")
    notes += [
        f"{plan.name} declares {declared} {what}, found {found}"
        for what, declared, found in (
            ("z steps", plan.z_steps, len({plane.z for plane in planes if plane.z is not None})),
            ("time points", plan.timepoints, len({plane.t for plane in planes})),
            ("sites per well", plan.sites, _most_sites(planes)),
        )
        if declared > 1 and declared != found
    ]
    strangers = sorted({plane.field.well for plane in planes} - set(plan.wells)) if plan.wells else []
    if strangers:
        notes.append(
            f"{plan.name} does not select {len(strangers)} well(s) with images: {some(strangers, 6)}"
        )
    return notes


def _most_sites(planes: Sequence[Plane]) -> int:
    return max(Counter(field.well for field in {plane.field for plane in planes}).values(), default=0)


def _read_entries(path: Path) -> dict[str, list[str]]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES).decode("latin-1")
        rows = list(csv.reader(content.splitlines(), skipinitialspace=True))
    except (OSError, csv.Error) as error:
        found = f"{path} cannot be read: {error}"
        raise InputError(found, hint=_HINT) from error
    entries = {row[0].strip().lower(): [value.strip() for value in row[1:]] for row in rows if row}
    if "htsinfofile" not in entries:
        found = f"{path} is not a .HTD file of MetaXpress"
        raise InputError(found, hint=_HINT)
    return entries


def _numbered(entries: Mapping[str, list[str]], name: str) -> list[tuple[int, list[str]]]:
    """Entries such as ``WaveName1``, ``WaveName2``, by number."""
    return sorted(
        (int(key[len(name) :]), values)
        for key, values in entries.items()
        if key.startswith(name) and _is_number(key[len(name) :])
    )


def _wells(entries: Mapping[str, list[str]], path: Path) -> tuple[str, ...]:
    selected = [
        (row, column)
        for row, values in _numbered(entries, "wellsselection")
        for column, value in enumerate(values, start=1)
        if _is_true(value)
    ]
    try:
        return tuple(well_name(row, column) for row, column in selected)
    except InputError as error:
        found = f"{path} selects a well that no plate has: {error.found}"
        raise InputError(found, hint=_HINT) from error


def _number(entries: Mapping[str, list[str]], name: str) -> int:
    value = next(iter(entries.get(name, [])), "")
    return int(value) if _is_number(value) else 0


def _is_number(text: str) -> bool:
    # Superscripts are digits too in some code pages, and no number has more figures.
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _is_true(value: str) -> bool:
    return value.upper() == "TRUE"
