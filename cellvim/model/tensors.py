"""Tensors and one JSON header in a safetensors file: whole or not at all, same content, same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cellvim.atomic import write_atomically
from cellvim.errors import DiskError

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
