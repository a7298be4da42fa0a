"""Checksums of every file of a plate and of its companion, so that not one flipped bit stays hidden."""

from collections.abc import Mapping

from cellvim.atomic import json_bytes
from cellvim.provenance import sha256_of
from cellvim.store.layout import companion_of
from cellvim.store.place import Place, read_all
from cellvim.store.signature import RUN_FILE

CHECKSUMS_FILE = "checksums.json"
# These change from run to run, or hold the checksums themselves.
_NOT_CHECKED = frozenset({CHECKSUMS_FILE, RUN_FILE, "lock"})


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
