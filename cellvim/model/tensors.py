"""Tensors and one JSON header in a safetensors file: whole or not at all, same content, same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cellvim.atomic import write_atomically
from cellvim.errors import DiskError, InputError

HEADER_KEY = "cellvim"
"""The only metadata key: safetensors writes several in random order."""


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
