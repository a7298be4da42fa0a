"""Checkpoints with changed bytes: told as damage, whatever the bytes have become."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cellvim.errors import ExitCode
from tests.model.published_states import IMAGE, random_state

DAMAGE = (
    "is damaged, or no checkpoint",
    "is a damaged zip archive",
    "is neither a zip archive nor a pickle",
    "holds more than weights",
    ", which no weights need",
    "declares",
    "holds a compressed member",
)
"""What may be said of a file whose bytes were changed; never that it is another model."""


def whole_checkpoint(path: Path) -> bytearray:
    state = {f"backbone.{name}": tensor for name, tensor in random_state(IMAGE).items()}
    torch.save({"state_dict": state, "hyper_parameters": {"collapse_method": "max"}}, path)
    return bytearray(path.read_bytes())


def test_an_undamaged_file_is_imported(tmp_path: Path, run: Callable[..., int]) -> None:
    whole_checkpoint(tmp_path / "file.ckpt")
    assert run("import-checkpoint", tmp_path / "file.ckpt", "--out", tmp_path / "out") == ExitCode.DONE


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_is_told_as_damage(
    seed: int, tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(seed)
    path = tmp_path / "file.ckpt"
    content = whole_checkpoint(path)
    if seed % 3 == 0:
        content = content[: generator.integers(len(content))]
    elif seed % 3 == 1:
        start = content.find(b"data.pkl") + 64
        for _ in range(5):
            content[start + int(generator.integers(300))] = generator.integers(256)
    else:
        # The list of contents, at the end of the archive.
        start = content.find(b"PK\x01\x02")
        for _ in range(20):
            content[start + int(generator.integers(len(content) - start))] = generator.integers(256)
    path.write_bytes(content)
    assert run("import-checkpoint", path, "--out", tmp_path / "out") == ExitCode.BAD_INPUT
    error, _ = capsys.readouterr().err.splitlines()
    assert any(message in error for message in DAMAGE), error
    assert not (tmp_path / "out").exists()
