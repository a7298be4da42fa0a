"""Words about the scan that a training run left among its hyper-parameters, wherever it put them."""

from collections.abc import Iterator, Mapping
from typing import Any

from cellvim.errors import InputError
from cellvim.model.importing.unpickling import Inert
from cellvim.model.published.description import OFFERED, meaning
from cellvim.model.published.words import shown

WORDS = (
    "scan_order",
    "scanpath_type",
    "collapse_method",
    "rotate_every_block",
    "mask_ratio",
    "img_size",
    *OFFERED,
)
"""What the tensors do not tell, or what would change the equations."""

MOST_VALUES = 4
"""Values of distinct meaning that are kept of a word; two are one too many."""
VISITED = 100_000
"""Containers that are looked into; a file may refer to one of its own many times over."""


def find_words(tree: object) -> dict[str, list[Any]]:
    """Collect the values of distinct meaning of each word, in nested dicts, lists and stand-ins, at any depth."""
    found: dict[str, list[Any]] = {}
    waiting, seen = [tree], set[int]()
    while waiting and len(seen) < VISITED:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for key, child in _children(node):
            word = key.replace("/", ".").rpartition(".")[2] if isinstance(key, str) else ""
            value = _plain(child) if word in WORDS else None
            values = found.setdefault(word, []) if value is not None else []
            if value is not None and len(values) < MOST_VALUES and _is_new(word, value, values):
                values.append(value)
            if isinstance(child, dict | list | tuple | Inert):
                waiting.append(child)
    return {word: values for word, values in found.items() if values}


def settle(found: Mapping[str, list[Any]], flags: Mapping[str, str]) -> dict[str, Any]:
    """Take each word's only value.

    Args:
        found: Values by word.
        flags: Flag that decides a word, where there is one.

    Raises:
        InputError: A word has several.
    """
    for word, values in found.items():
        if len(values) > 1:
            message = f"the hyper-parameters say {word} more than once: {', '.join(map(shown, values))}"
            flag = flags.get(word)
            hint = (
                f"say which with {flag}" if flag else "no flag decides this; ask the authors of the weights"
            )
            raise InputError(message, hint=hint)
    return {word: values[0] for word, values in found.items()}


def _is_new(word: str, value: Any, known: list[Any]) -> bool:
    return _meaning(word, value) not in [_meaning(word, other) for other in known]


def _meaning(word: str, value: Any) -> object:
    try:
        return meaning(word, value)
    except InputError:
        # Refused by its own name, if it matters to the model.
        return value


def _children(node: object) -> Iterator[tuple[object, object]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list | tuple):
        yield from (("", child) for child in node)
    elif isinstance(node, Inert):
        yield "", node.arguments
        yield "", node.content


def _plain(value: object) -> Any:
    """A text, number, or pair of numbers, unwrapped from the nodes that OmegaConf makes of them; else None."""
    value = _unwrap(value)
    if isinstance(value, list | tuple):
        parts = [_unwrap(part) for part in value[:3]]
        return parts if len(parts) <= 2 and all(isinstance(part, int | float) for part in parts) else None
    return value if isinstance(value, str | bool | int | float) else None


def _unwrap(value: object) -> object:
    if isinstance(value, Inert) and isinstance(value.content, dict):
        return value.content.get("_val", value.content.get("_content"))
    return value
