"""Tensors and one JSON header in a safetensors file: whole or not at all, same content, same bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cellvim.atomic import write_atomically
from cellvim.errors import DiskError, InputError

HEADER_KEY = "cellvim"
"""The only metadata key: safetensors writes several in random order."""

SHOWN = 4
"""Differences that a message names."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Differences:
    """How names and shapes of tensors differ from those expected; false where they do not.

    Args:
        missing: Expected, not found; in the order of what is expected.
        unexpected: Found, not expected; in the order of what was found.
        misshapen: What was found and what was expected instead, by name.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        problems = [f"{name} is missing" for name in self.missing]
        problems += [f"{name} is not expected" for name in self.unexpected]
        problems += [
            f"{name} is {found} instead of {shape}" for name, (found, shape) in self.misshapen.items()
        ]
        rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        return "; ".join(problems[:SHOWN]) + rest


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def differences(expected: Shapes, found: Shapes) -> Differences:
    """Compare names and shapes of tensors, one by one."""
    return Differences(
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        misshapen={
            name: (found[name], shape)
            for name, shape in expected.items()
            if name in found and found[name] != shape
        },
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, Any]) -> None:
    """Write a file of tensors.

    Args:
        path: Final name.
        tensors: By name; copied to the CPU.
        header: JSON-able facts about them.

    Raises:
        DiskError: The disk is full, or the path cannot be written.
    """
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {HEADER_KEY: json.dumps(header, sort_keys=True)}
    try:
        write_atomically(path, lambda temporary: save_file(content, temporary, metadata))
    except SafetensorError as error:  # its only way to tell of a full disk
        found = f"{path} cannot be written: {error}"
        hint = "free some space, or check that you may write there; then run the same command again"
        raise DiskError(found, hint=hint) from error


def read_tensors(path: Path, *, hint: str) -> tuple[str | None, dict[str, Tensor]]:
    """Read a file of tensors.

    Args:
        path: A file that is there.
        hint: What the user can do if it is of no use.

    Returns:
        The header as JSON text, None in files of other software; and the tensors by name.

    Raises:
        InputError: The file is no safetensors file, or damaged.
    """
    try:
        with safe_open(path, framework="pt") as content:
            header = (content.metadata() or {}).get(HEADER_KEY)
            return header, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        found = f"{path} is not a readable safetensors file: {error}"
        raise InputError(found, hint=hint) from error
