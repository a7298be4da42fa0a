"""What every class of settings can do: be read, be checked, be written, and say which values it has."""

import hashlib
import json
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
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            found = f"{path} is not YAML: {error}"
            raise InputError(found, hint="see configs/ for examples") from error
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
