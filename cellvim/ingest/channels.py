"""Which stain each of the source's channel keys is."""

from collections.abc import Mapping, Sequence

from cellvim.errors import InputError, UsageError
from cellvim.ingest.sources import natural

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
        names = {key: stains.get(key, "") or key for key in ordered}
        repeated = {name for name in names.values() if list(names.values()).count(name) > 1}
        return {key: f"{name}_{key}" if name in repeated else name for key, name in names.items()}
    parts = [part.strip() for part in wanted.split(",")]
    if not all(parts):
        found = f"--channels {wanted!r} names an empty stain"
        raise UsageError(found, hint=_HINT)
    given = _by_key(parts, ordered, wanted) if "=" in wanted else _in_order(parts, ordered)
    names = {key: given.get(key, stains.get(key, "") or key) for key in ordered}
    if len(set(names.values())) < len(names):
        found = f"--channels {wanted!r} gives two channels one name: {list(names.values())}"
        raise UsageError(found, hint=_HINT)
    return names


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
