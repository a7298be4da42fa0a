"""Pages of reference, made anew in every build from what they describe, so that they cannot be out of date."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cellvim.cli import app
from cellvim.config import (
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    ImportSettings,
    IngestSettings,
    NormalizeSettings,
    PretrainSettings,
    Settings,
    StudySettings,
)

ROOT = Path(__file__).parents[2]
STAGES: tuple[type[Settings], ...] = (
    PretrainSettings,
    StudySettings,
    IngestSettings,
    EmbedSettings,
    EvaluateSettings,
    NormalizeSettings,
    ImportSettings,
    DemoSettings,
)


def commands() -> str:
    """Every command with its arguments and flags, from the command line itself."""
    return "\n\n".join(_command_sections(typer.main.get_command(app), "cellvim"))


def settings() -> str:
    """Every class of settings with its keys, from their types and docstrings; those inside others follow them."""
    every = dict.fromkeys(each for stage in STAGES for each in _with_parts(stage))
    return "\n\n".join(map(_settings_section, every))


def kernels() -> str:
    """The page of the kernels, which lies with their code."""
    text = (ROOT / "kernels/README.md").read_text("utf-8")
    return text.split("\n", 1)[1].replace("](../docs/", "](../")


KINDS: dict[type, str] = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
WORDS: dict[Any, str] = {
    bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", type(None): "nothing",
}  # fmt: skip
GENERATED: dict[str, Callable[[], str]] = {"commands": commands, "settings": settings, "kernels": kernels}
"""Parts of pages by the name in their `<!-- generated: NAME -->`."""


def _command_sections(command: Any, name: str) -> Iterator[str]:
    depth = "##" if name.count(" ") < 2 else "###"
    is_group = hasattr(command, "commands")
    arguments = [_spelt_argument(each) for each in command.params if _is_argument(each)]
    usage = "```text\n" + " ".join([name, *arguments, "[OPTIONS]"]) + "\n```"
    parts = [f"{depth} `{name}`", _paragraphs(command.help or ""), "" if is_group else usage]
    types = get_type_hints(inspect.unwrap(command.callback)) if command.callback else {}
    rows = [_flag_row(each, types[each.name]) for each in command.params if each.name in types]
    if rows:
        parts.append("\n".join(["| flag | | default |", "|---|---|---|", *rows]))
    yield "\n\n".join(part for part in parts if part)
    for below, inner in getattr(command, "commands", {}).items():
        yield from _command_sections(inner, f"{name} {below}")


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _spelt_argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = f"{name}..." if argument.nargs != 1 else name
    return name if argument.required else f"[{name}]"


def _flag_row(parameter: Any, kind: Any) -> str:
    if _is_argument(parameter):
        name = _spelt_argument(parameter)
    else:
        name = " ".join([", ".join(parameter.opts), _value(parameter, kind)]).strip()
    help_text, default = _help_and_default(parameter)
    return f"| `{name}` | {_cell(help_text)} | {default} |"


def _value(parameter: Any, kind: Any) -> str:
    """What follows a flag: its choices, its metavar, or the kind of its value; nothing for switches."""
    choices = [
        each for part in (kind, *get_args(kind)) if get_origin(part) is Literal for each in get_args(part)
    ]
    if choices:
        return "\\|".join(map(str, choices))
    if parameter.metavar:
        return str(parameter.metavar)
    kinds = [part for part in (kind, *get_args(kind)) if isinstance(part, type)]
    return "" if bool in kinds else next((KINDS[part] for part in kinds if part in KINDS), "TEXT")


def _help_and_default(parameter: Any) -> tuple[str, str]:
    help_text = parameter.help or ""
    told = re.search(r"\s*\[default: ([^\]]+)\]", help_text)
    if told:
        return help_text.replace(told[0], ""), told[1]
    if parameter.required:
        return help_text, "needed"
    value = parameter.default
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return help_text, f"`{value}`" if is_plain and str(value) else ""


def _paragraphs(text: str) -> str:
    return re.sub(r"\n[ \t]+", "\n", text.strip())


def _with_parts(stage: type[Settings]) -> Iterator[type[Settings]]:
    yield stage
    for field in stage.model_fields.values():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                yield from _with_parts(part)


def _settings_section(each: type[Settings]) -> str:
    rows = [
        f"| `{name}` | {_cell(field.description or '')} | {_type(field.annotation)} | {_default(field)} |"
        for name, field in each.model_fields.items()
    ]
    text = re.sub(r"\s*\n\s*", " ", (each.__doc__ or "").strip())
    table = "\n".join(["| key | | type | default |", "|---|---|---|---|", *rows])
    return f"## {each.__name__}\n\n{text}\n\n{table}"


def _type(kind: Any) -> str:
    """Say what a key takes, for people who write YAML."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, parts)))
    if origin is tuple:
        inner = dict.fromkeys(_type(part) for part in parts if part is not ...)
        return f"list of {' and '.join(inner)}" if ... in parts else f"pair of {' and '.join(inner)}"
    if origin is dict:
        return "mapping"
    return WORDS.get(kind) or str(kind.__name__)


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return (
            ""
            if field.default_factory is dict or not field.get_default(call_default_factory=True)
            else "of the machine"
        )
    if field.default is PydanticUndefined:
        return "needed"
    if field.default is None or field.default in ((), {}):
        return ""
    if isinstance(field.default, Settings):
        own = field.default.model_dump(exclude_unset=True)
        return ", ".join(f"`{key}` {value}" for key, value in own.items()) or "below"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def _cell(text: str) -> str:
    return re.sub(r"\s*\n\s*", " ", text.strip()).replace("|", "\\|").replace("<", "&lt;")
