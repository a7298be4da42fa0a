"""Words of a published configuration, as people and packages write them, each read strictly or refused."""

from collections.abc import Mapping
from typing import Any, TypeVar

from cellvim.errors import InputError

Choice = TypeVar("Choice", bound=str)
Words = Mapping[str, Any]

HINT = "use the configuration that the weights were trained with"
MOST_DIGITS = 9
"""Digits of a whole number; Python takes long over thousands of them."""
MOST_PX = 1_000_000
SHOWN_CHARACTERS = 80
FLAGS = {"true": True, "false": False}


def shown(value: object) -> str:
    """Quote a value of any kind, in one short line."""
    try:
        text = repr(value)
    except ValueError:
        # Python writes no integers of thousands of digits.
        return f"a {type(value).__name__} of too many digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."


def flag(words: Words, word: str, *, default: bool) -> bool:
    """Read true or false: a bool, 0 or 1, or the text in any case.

    Raises:
        InputError: It is something else.
    """
    value = words.get(word, default)
    read = FLAGS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(read, int | float) or read not in {0, 1}:
        found = f"{word}: {shown(value)} is neither true nor false"
        raise InputError(found, hint=HINT)
    return bool(read)


def choose(words: Words, word: str, choices: Mapping[str, Choice], default: Choice) -> Choice:
    """Read one of several names, in any case.

    Raises:
        InputError: It is none of them.
    """
    value = words.get(word, default)
    chosen = choices.get(value.lower()) if isinstance(value, str) else None
    if chosen is None:
        found = f"{word}: {shown(value)} is none of {', '.join(choices)}"
        raise InputError(found, hint=HINT)
    return chosen


def ratio(words: Words, word: str, default: float) -> float:
    """Read a share between 0 and 1, both excluded: a number, or the text of one.

    Raises:
        InputError: It is something else.
    """
    value = words.get(word, default)
    try:
        read = float(value) if isinstance(value, str | int | float) else None
    except (ValueError, OverflowError):
        read = None
    if read is None or not 0 < read < 1:
        found = f"{word} is {shown(value)}, a number between 0 and 1 is expected"
        raise InputError(found, hint=HINT)
    return read


def whole(value: object) -> int | None:
    """A whole number that is not negative: an int, a float without a fraction, or the text of one; else None."""
    if isinstance(value, str):
        is_number = value.isascii() and value.isdecimal() and len(value) <= MOST_DIGITS
        return int(value) if is_number else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 10**MOST_DIGITS and value == int(value) else None


def sides_px(size: object) -> tuple[int, int]:
    """Height and width of an image size written as one number or two.

    Raises:
        InputError: It is neither.
    """
    sides = [whole(side) for side in (size if isinstance(size, list | tuple) else (size, size))[:3]]
    read = [side for side in sides if side is not None and 0 < side <= MOST_PX]
    if len(sides) != 2 or len(read) != 2:
        found = f"img_size: {shown(size)} is neither a side in pixels nor a height and a width"
        raise InputError(found, hint=HINT)
    return read[0], read[1]
