"""Run facts as titled lists: what was run, on what, with which settings and which model."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cellvim.evaluate.report.wording import spelled

_TITLES = {
    "counts": "What went in and came out",
    "notes": "How the tables were read",
    "inputs": "Inputs and their SHA-256",
    "settings": "Settings",
    "versions": "Versions",
    "packages": "Versions",
    "model_cards": "Models",
    "models": "Models",
}
_SHOWN_ELSEWHERE = ("command", "warnings")


@dataclass(frozen=True)
class FactGroup:
    """Facts of one thing, for example one table; `name` is empty where there is nothing to tell apart."""

    name: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class FactList:
    title: str
    groups: tuple[FactGroup, ...]


def command_line(facts: Mapping[str, Any]) -> str:
    """Return the command as one would type it, or an empty string."""
    command = facts.get("command", "")
    return command if isinstance(command, str) else shlex.join(str(part) for part in command)


def warnings(facts: Mapping[str, Any]) -> list[str]:
    return [str(warning) for warning in facts.get("warnings", ())]


def fact_lists(facts: Mapping[str, Any]) -> list[FactList]:
    """Everything else that is known of the run, known sections first, loose values last under `Run`."""
    sections = {key: value for key, value in facts.items() if key not in _SHOWN_ELSEWHERE}
    nested = [key for key in sections if isinstance(sections[key], Mapping | list | tuple) and sections[key]]
    order = list(_TITLES)
    nested.sort(key=lambda key: order.index(key) if key in order else len(order))
    lists = [FactList(_TITLES.get(key, _title(key)), tuple(_groups(sections[key]))) for key in nested]
    loose = tuple((spelled(key), str(value)) for key, value in sections.items() if _is_plain(value))
    return [*lists, FactList("Run", (FactGroup("", loose),))] if loose else lists


def _groups(section: Any) -> Iterator[FactGroup]:
    """Yield a group for each mapping in a section, after one for what stands loose in it."""
    if not isinstance(section, Mapping):
        yield FactGroup("", tuple(_flat(section)))
        return
    loose = {key: value for key, value in section.items() if not isinstance(value, Mapping)}
    if loose:
        yield FactGroup("", tuple(_flat(loose)))
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield FactGroup(str(key), tuple(_flat(value)))


def _title(key: str) -> str:
    words = spelled(key)
    return words[:1].upper() + words[1:]


def _is_plain(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping | list | tuple)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(model.width, 96)`` for every leaf; a list of plain values stays one line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and not all(_is_plain(inner) for inner in value):
        for number, inner in enumerate(value, start=1):
            yield from _flat(inner, f"{path}.{number}" if path else str(number))
    else:
        shown = ", ".join(str(inner) for inner in value) if isinstance(value, list | tuple) else value
        yield path, "none" if shown is None or shown == "" else str(shown)
