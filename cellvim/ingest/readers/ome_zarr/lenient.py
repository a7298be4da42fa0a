"""What a stranger's JSON holds where something is expected, or nothing."""

import math
from typing import Any

MOST_NAME_LENGTH = 100


def clean(text: Any) -> str:
    """A stranger's name, cut and on one line; empty if it is none."""
    if not isinstance(text, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MOST_NAME_LENGTH]).strip()


def as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def as_mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
