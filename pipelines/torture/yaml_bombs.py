"""YAML whose aliases are nested like the entities of an XML bomb, for whatever reads settings."""

from collections.abc import Callable, Iterator

LEVELS = 30
_SIDES = 10


def yaml_bombs() -> Iterator[tuple[str, str]]:
    """Name and content: a list or a mapping of 10 to the 30 values in the place of each kind of setting."""
    for key in ("plates", "ingest", "jobs", "pretrain", "model"):
        for kind, level in _LEVELS.items():
            lines = ["l0: &l0 lol", *(f"l{n}: &l{n} {level(f'*l{n - 1}')}" for n in range(1, LEVELS + 1))]
            settings = {"name": "x", "plates": "x", "model": "x", key: f"*l{LEVELS}"}
            yield (
                f"{kind} for {key}",
                "\n".join([*lines, *(f"{name}: {text}" for name, text in settings.items())]),
            )


_LEVELS: dict[str, Callable[[str], str]] = {
    "list": lambda below: f"[{', '.join([below] * _SIDES)}]",
    "mapping": lambda below: f"{{{', '.join(f'k{n}: {below}' for n in range(_SIDES))}}}",
}
