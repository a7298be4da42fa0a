"""What every class of settings can do: be read, be checked, be written, and say which values it has."""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cellvim.errors import InputError, NotFoundError, UsageError


def _as_location(value: Path | str) -> Path | str:
    return Path(value) if isinstance(value, str) and "://" not in value else value


Location = Annotated[str | Path, AfterValidator(_as_location)]
"""A path, or the URL of an object store such as ``s3://bucket/screen``."""


def cores() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


MOST_VALUES = 1_000_000
"""Of a settings file. YAML's aliases let a few lines stand for more values than any memory holds."""
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Settings(BaseModel):
    """Immutable, and strict about spelling: an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        """Read a YAML file; `overrides` win over the file.

        Raises:
            NotFoundError: No such file.
            InputError: The file is not YAML, or a key or value is wrong.
        """
        if not path.is_file():
            raise NotFoundError(path, expected="settings file", hint="see configs/ for examples")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
            found = f"{path} is not YAML: {error}"
            raise InputError(found, hint="see configs/ for examples") from error
        if _count(content, {}) > MOST_VALUES:
            found = f"{path} stands for more than {MOST_VALUES:,} values once its aliases are written out"
            raise InputError(found, hint="write settings without aliases of aliases")
        if not isinstance(content, dict):
            found = f"{path} holds no keys"
            raise InputError(found, hint="see configs/ for examples")
        return cls.checked(merge(content, overrides), origin=path)

    @classmethod
    def checked(cls, content: dict[str, Any], *, origin: Path | None = None) -> Self:
        """Validate, and turn pydantic's report into one line a user can act on.

        Args:
            content: Keys and values.
            origin: File they come from; None for the command line.

        Raises:
            InputError: A key or value of the file is wrong.
            UsageError: A flag of the command line is.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "settings"
            kind = UsageError if origin is None else InputError
            found = f"{origin or 'settings'}: {where}: {first['msg']}"
            raise kind(found, hint="`--help` lists the settings") from error

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def merge(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Lay `overrides` over `content`, key by key in nested sections; None means "not given"."""
    merged = dict(content)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


def _count(content: Any, known: dict[int, float]) -> float:
    """Values in a document with every alias written out; infinite where one holds itself."""
    if not isinstance(content, dict | list):
        return 1
    if id(content) not in known:
        # What is met again before it is counted holds itself.
        known[id(content)] = math.inf
        inner = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_count(value, known) for value in inner)
    return known[id(content)]
