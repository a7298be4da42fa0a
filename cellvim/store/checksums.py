"""Checksums of every file of a plate and of its companion, so that not one flipped bit stays hidden."""

import hashlib
from collections.abc import Mapping

from cellvim.atomic import json_bytes
from cellvim.errors import InputError
from cellvim.store.layout import companion_of
from cellvim.store.place import Place, read_all
from cellvim.store.records import load_json

CHECKSUMS_FILE = "checksums.json"
# These change from run to run, or hold the checksums themselves.
_NOT_CHECKED = frozenset({CHECKSUMS_FILE, "run.json", "lock"})


def write_checksums(plate: Place, known: Mapping[str, str]) -> None:
    """Record the sha256 of every file.

    Args:
        plate: PLATE.ome.zarr.
        known: File, relative to the plate, to its sha256: those of the plate need no second reading.
    """
    companion = companion_of(plate)
    names = [
        name
        for name in companion.names()
        if name.rpartition("/")[2] not in _NOT_CHECKED and not name.rpartition("/")[2].startswith(".")
    ]
    own = {name: sha256_of(content) for name, content in zip(names, read_all(companion, names), strict=True)}
    companion.write(CHECKSUMS_FILE, json_bytes({"companion": own, "plate": dict(known)}))


def damaged_files(plate: Place) -> list[str]:
    """List files that are missing, changed, or that ingest did not write; one line each.

    Raises:
        InputError: The checksums themselves cannot be read.
    """
    companion = companion_of(plate)
    recorded = load_json(companion, CHECKSUMS_FILE)
    try:
        parts = [(plate, dict(recorded["plate"])), (companion, dict(recorded["companion"]))]
    except (LookupError, TypeError, ValueError) as error:
        found = f"{companion.location}/{CHECKSUMS_FILE} is damaged"
        raise InputError(found, hint="ingest again with --overwrite") from error
    problems = []
    for place, checksums in parts:
        for name, sha256 in sorted(checksums.items()):
            if (problem := _problem(place, name, sha256)) is not None:
                problems.append(f"{place.name}/{name} {problem}")
    strangers = set(plate.names()) - set(parts[0][1])
    return problems + [f"{plate.name}/{name} was not written by ingest" for name in sorted(strangers)]


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _problem(place: Place, name: str, sha256: str) -> str | None:
    try:
        found = sha256_of(place.read(name))
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    return None if found == sha256 else "differs from what was written"
