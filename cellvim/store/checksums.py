"""Checksums of every file of a plate and of its companion, so that not one flipped bit stays hidden."""

from collections.abc import Mapping
from pathlib import Path

from cellvim.atomic import write_json
from cellvim.errors import InputError
from cellvim.provenance import sha256_of_file
from cellvim.store.layout import companion_of
from cellvim.store.records import load_json

CHECKSUMS_FILE = "checksums.json"
# These change from run to run, or hold the checksums themselves.
_NOT_CHECKED = frozenset({CHECKSUMS_FILE, "run.json", "lock"})


def write_checksums(plate: Path, known: Mapping[str, str]) -> None:
    """Record the sha256 of every file.

    Args:
        plate: PLATE.ome.zarr.
        known: File, relative to the plate, to its sha256: those of the plate need no second reading.
    """
    companion = companion_of(plate)
    own = {
        path.relative_to(companion).as_posix(): sha256_of_file(path)
        for path in companion.rglob("*")
        if path.is_file() and path.name not in _NOT_CHECKED and not path.name.startswith(".")
    }
    write_json(companion / CHECKSUMS_FILE, {"companion": own, "plate": dict(known)})


def damaged_files(plate: Path) -> list[str]:
    """List files that are missing, changed, or that ingest did not write; one line each.

    Raises:
        InputError: The checksums themselves cannot be read.
    """
    companion = companion_of(plate)
    recorded = load_json(companion / CHECKSUMS_FILE)
    try:
        parts = [(plate, dict(recorded["plate"])), (companion, dict(recorded["companion"]))]
    except (LookupError, TypeError, ValueError) as error:
        found = f"{companion / CHECKSUMS_FILE} is damaged"
        raise InputError(found, hint="ingest again with --overwrite") from error
    problems = []
    for folder, checksums in parts:
        for name, sha256 in sorted(checksums.items()):
            if (problem := _problem(folder / name, sha256)) is not None:
                problems.append(f"{folder.name}/{name} {problem}")
    strangers = {path.relative_to(plate).as_posix() for path in plate.rglob("*") if path.is_file()}
    strangers -= set(parts[0][1])
    return problems + [f"{plate.name}/{name} was not written by ingest" for name in sorted(strangers)]


def _problem(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return "is missing"
    try:
        found = sha256_of_file(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if found == sha256 else "differs from what was written"
