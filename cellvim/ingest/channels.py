"""Which stain each of the source's channel keys is, and which of them are left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cellvim.errors import InputError, UsageError
from cellvim.ingest.sources import SourcePlate, natural

_HINT = "write the stains in the order of the source's keys (DNA,GFP), or one by one (1=GFP,2=DNA)"


def name_channels(keys: Sequence[str], stains: Mapping[str, str], wanted: str | None) -> dict[str, str]:
    """Name every channel key, in the order that the store will have.

    Args:
        keys: Channel keys that have images.
        stains: Names that the source itself gives.
        wanted: The `--channels` setting; wins over `stains`.

    Returns:
        Key to stain, sorted by key (``2`` before ``10``). A stain that the source gives to several keys
        gets the key appended.

    Raises:
        UsageError: `wanted` cannot be read, or names a stain twice.
        InputError: `wanted` does not fit the keys.
    """
    ordered = sorted(keys, key=natural)
    if wanted is None:
        return _distinct({key: given_stain(key, stains) for key in ordered})
    parts = [part.strip() for part in wanted.split(",")]
    if not all(parts):
        found = f"--channels {wanted!r} names an empty stain"
        raise UsageError(found, hint=_HINT)
    given = _by_key(parts, ordered, wanted) if "=" in wanted else _in_order(parts, ordered)
    names = {key: given.get(key) or given_stain(key, stains) for key in ordered}
    if len(set(names.values())) < len(names):
        found = f"--channels {wanted!r} gives two channels one name: {list(names.values())}"
        raise UsageError(found, hint=_HINT)
    return names


def drop_channels(plate: SourcePlate, wanted: str | None) -> SourcePlate:
    """Leave channels of a plate out, named by their keys or by the stains that the source gives them.

    Args:
        plate: As its source describes it.
        wanted: The `--drop-channels` setting; nothing is left out if None.

    Raises:
        InputError: There is no such channel, or none would be left.
    """
    if wanted is None:
        return plate
    keys = sorted({plane.channel for plane in plate.planes}, key=natural)
    names = {name for key in keys for name in (key, given_stain(key, plate.stains))}
    dropped = {part.strip() for part in wanted.split(",")}
    kept = {key for key in keys if not dropped & {key, given_stain(key, plate.stains)}}
    unknown = sorted(dropped - names, key=natural)
    if unknown or not kept:
        what = f"names {unknown[0]!r}" if unknown else "leaves no channel"
        present = ", ".join(f"{key} ({given_stain(key, plate.stains)})" for key in keys)
        found = f"--drop-channels {what}; plate {plate.name} has: {present}"
        raise InputError(found, hint="name some of these, by key or by stain")
    left = ", ".join(key for key in keys if key not in kept)
    note = f"channel {left} is left out, as asked"
    planes = tuple(plane for plane in plate.planes if plane.channel in kept)
    return replace(plate, planes=planes, notes=(*plate.notes, note))


def given_stain(key: str, stains: Mapping[str, str]) -> str:
    """The source's name of a channel, without what would disturb a terminal."""
    name = "".join(letter if letter.isprintable() else " " for letter in stains.get(key, ""))
    return " ".join(name.split()) or key


def _distinct(names: Mapping[str, str]) -> dict[str, str]:
    """Append its key to a stain that several channels have, as often as it takes."""
    counts = Counter(names.values())
    if len(counts) == len(names):
        return dict(names)
    return _distinct({key: f"{name}_{key}" if counts[name] > 1 else name for key, name in names.items()})


def _in_order(parts: Sequence[str], ordered: Sequence[str]) -> dict[str, str]:
    if len(parts) != len(ordered):
        found = f"--channels names {len(parts)} stains, the source has {len(ordered)} channels: {', '.join(ordered)}"
        raise InputError(found, hint=_HINT)
    return dict(zip(ordered, parts, strict=True))


def _by_key(parts: Sequence[str], ordered: Sequence[str], wanted: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in parts]
    if not all(key.strip() and name.strip() for key, _, name in pairs):
        found = f"--channels {wanted!r} mixes `key=stain` with something else"
        raise UsageError(found, hint=_HINT)
    given = {key.strip(): name.strip() for key, _, name in pairs}
    unknown = [key for key in given if key not in ordered]
    if unknown or len(given) < len(pairs):
        found = f"--channels names key {(unknown or list(given))[0]!r}, the source has: {', '.join(ordered)}"
        raise InputError(found, hint=_HINT)
    return given
