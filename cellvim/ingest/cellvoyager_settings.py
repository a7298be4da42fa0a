"""The .mrf and .mes beside a measurement: welcome, but pixels do not depend on them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath
from typing import TypeVar

from cellvim.errors import InputError
from cellvim.ingest.cellvoyager_index import Detail, Protocol, read_detail, read_protocol
from cellvim.ingest.sources import Source

_Content = TypeVar("_Content", Detail, Protocol)
# What the instrument writes where nobody gave the plate a name.
_NO_NAME = "noplateid"


@dataclass(frozen=True)
class Described:
    """What is known about a measurement beside its images.

    Attributes:
        notes: Which of the files are absent or damaged, and what that costs.
    """

    detail: Detail = field(default_factory=Detail)
    protocol: Protocol = field(default_factory=Protocol)
    notes: tuple[str, ...] = ()


def describe(root: Path, source: Source) -> Described:
    """Read the .mrf and the .mes of the measurement in a folder. What is damaged becomes a note, not an error."""
    notes: list[str] = []
    details = _beside(root, source, ".mrf")
    named = [path for path in details if path.name.lower() == "measurementdetail.mrf"]
    detail = _read((named or details)[:1], read_detail, Detail(), notes)
    if not details:
        notes.append("no MeasurementDetail.mrf: the pixel size is unknown")
    if detail.plate.lower() == _NO_NAME:
        detail = replace(detail, plate="")
    protocols = _beside(root, source, ".mes")
    wanted = PureWindowsPath(detail.protocol).name.lower()
    chosen = [path for path in protocols if path.name.lower() == wanted]
    if not chosen and len(protocols) > 1:
        notes.append(
            f"{len(protocols)} .mes files, none of them named by the .mrf: channels keep their numbers"
        )
    elif not protocols:
        notes.append("no .mes file: channels keep their numbers")
    chosen = chosen or (protocols if len(protocols) == 1 else [])
    protocol = _read(chosen, read_protocol, Protocol(), notes)
    return Described(detail, protocol, tuple(notes))


def _beside(root: Path, source: Source, suffix: str) -> list[Path]:
    return [path for path in source.files(frozenset({suffix})) if path.parent == root]


def _read(
    paths: list[Path], read: Callable[[Path], _Content], otherwise: _Content, notes: list[str]
) -> _Content:
    for path in paths:
        try:
            return read(path)
        except InputError as error:
            notes.append(f"left out: {error.found}")
    return otherwise
