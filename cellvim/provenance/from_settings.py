"""The command that settings amount to, whoever called: the same settings, the same command."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic_core import PydanticUndefined

from cellvim.config import (
    EmbedSettings,
    EvaluateSettings,
    ImportSettings,
    IngestSettings,
    NormalizeSettings,
    PretrainSettings,
    Settings,
)
from cellvim.provenance.commands import INPUT_OPTIONS, Argument, Command, role_of

SETTINGS: Mapping[str, type[Settings]] = {
    "ingest": IngestSettings,
    "pretrain": PretrainSettings,
    "embed": EmbedSettings,
    "normalize": NormalizeSettings,
    "evaluate": EvaluateSettings,
    "import-checkpoint": ImportSettings,
}
POSITIONAL = {
    "ingest": "sources",
    "pretrain": "plates",
    "embed": "plates",
    "normalize": "tables",
    "evaluate": "tables",
    "import-checkpoint": "file",
}
SETTINGS_FILE = "settings.yaml"
"""In a run folder: everything that a training was told."""
_SPELLED = {"has_intensity": "--intensity", "is_consensus": "--consensus"}
_LEFT_OUT = frozenset({"overwrite", "dry_run", "workers", "readers", "out", "is_synthetic"})


def command_from_settings(stage: str, settings: Mapping[str, Any]) -> Command | None:
    """Spell settings as a command, with the paths that they hold; None if no command says all of it.

    Only pages of synthetic data are beyond the command line. A training takes its settings from the file that it
    wrote into its run folder.
    """
    known = SETTINGS.get(stage)
    if known is None or settings.get("is_synthetic"):
        return None
    given = settings.get(POSITIONAL[stage])
    words = given if isinstance(given, list) else [given] if isinstance(given, str) else []
    arguments = [Argument("", str(word), "input") for word in words]
    out = str(settings.get("out", ""))
    if stage == "pretrain":
        arguments.append(Argument("--config", str(PurePosixPath(out) / SETTINGS_FILE), "input"))
    else:
        arguments += _options(stage, settings, known)
    return Command(stage, (*arguments, Argument("--out", out, "output")))


def _options(stage: str, settings: Mapping[str, Any], known: type[Settings]) -> Iterator[Argument]:
    """One argument for each setting that is not what it is by itself."""
    for key, field in known.model_fields.items():
        value = settings.get(key)
        default = None if field.default is PydanticUndefined else field.default
        if key in _LEFT_OUT or key == POSITIONAL[stage] or _is(value, default):
            continue
        option = _SPELLED.get(key, f"--{key.replace('_', '-')}")
        if key == "use_ema":
            yield Argument("--no-ema", "", "flag")
        elif isinstance(value, bool):
            yield Argument(option, "", "flag")
        else:
            role = "input" if option in INPUT_OPTIONS else role_of(stage, option) or "value"
            yield Argument(option, _text(key, value), role)


def _is(value: Any, default: Any) -> bool:
    """Whether a setting, as JSON has it, is the default."""
    if value is None or isinstance(value, list):
        return value is None or value == list(default or ())
    return bool(value == default)


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ("x" if key == "image_px" else ",").join(map(str, value))
    return str(value)
