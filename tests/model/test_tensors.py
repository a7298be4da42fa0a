"""Weights on disk: a full one is exit code 5, and leaves no half file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from cellvim.errors import DiskError, ExitCode
from cellvim.model import tensors
from cellvim.model.tensors import write_tensors


def test_weights_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_half_way(_tensors: Any, path: Path, _metadata: Any) -> None:
        path.write_bytes(b"half")
        msg = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(msg)

    monkeypatch.setattr(tensors, "save_file", fail_half_way)
    with pytest.raises(DiskError, match="No space left on device") as caught:
        write_tensors(tmp_path / "model.safetensors", {"x": torch.zeros(2)}, header={})
    assert caught.value.exit_code == ExitCode.DISK
    assert list(tmp_path.iterdir()) == []
