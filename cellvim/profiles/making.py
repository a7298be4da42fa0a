"""How a table was made, as its provenance tells: which tables may be mixed, and what stands in the way."""

from collections.abc import Mapping
from typing import Any

# What a table's provenance says about its own plates and run, which differs between tables of one making.
OWN_FACTS = frozenset(
    {
        "identity",
        "plates",
        "failed",
        "skipped",
        "left_out",
        "unknown_stains",
        "inputs",
        "fitted_on",
        "warnings",
    }
)
# The card of a model holds much; its weights' hash, which is compared, says as much.
MODEL_CARD = "model"
SHOWN = 60


def making_of(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree between tables whose features are to be compared; empty for a foreign table."""
    return {key: value for key, value in provenance.items() if key not in OWN_FACTS | {MODEL_CARD}}


def first_difference(making: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Say what differs between two makings, in words; None if nothing does."""
    if bool(making) != bool(other):
        return "one says how it was made (by cellvim), the other does not"
    ignored = {"channels"} if averages_channels(making) and averages_channels(other) else set()
    for key in sorted((making.keys() | other.keys()) - ignored):
        if making.get(key) != other.get(key):
            return f"{key} is {shown(making.get(key))} in one and {shown(other.get(key))} in the other"
    return None


def averages_channels(making: Mapping[str, Any]) -> bool:
    """Whether features are averages over channels, whichever those were."""
    return making.get("pool") == "all" and not making.get("has_intensity")


def shown(value: Any) -> str:
    text = "not told" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def merged(provenances: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Provenance of tables of one making, joined: what each says of its own plates is put together."""
    joined = dict(provenances[0])
    for other in provenances[1:]:
        for key in OWN_FACTS & other.keys():
            joined[key] = together(joined.get(key), other[key])
    if len(provenances) > 1:
        joined.pop("identity", None)
    return joined


def together(first: Any, second: Any) -> Any:
    if isinstance(first, dict) and isinstance(second, dict):
        return first | second
    if isinstance(first, list) and isinstance(second, list):
        return list(dict.fromkeys([*first, *second]))
    return second if first is None else first
