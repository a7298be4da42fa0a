"""Small vendor folders to ingest, and the settings for them."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cellvim.cli import app
from cellvim.config import IngestSettings
from cellvim.terminal import run_to_exit_code

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Write TIFFs: `write_images("P", wells=("A01",), sites=2, channels=2)`, named ``P_A01_s1_w1.tif``."""

    def write(
        plate: str = "P",
        *,
        wells: tuple[str, ...] = ("A01", "B02"),
        sites: int = 2,
        channels: int = 2,
        template: str = "{plate}_{well}_s{site}_w{channel}.tif",
        shape: tuple[int, int] = (40, 50),
    ) -> Path:
        folder = tmp_path / "images"
        generator = np.random.default_rng(sum(map(ord, plate + template)))
        for well in wells:
            for site in range(1, sites + 1):
                for channel in range(1, channels + 1):
                    path = folder / template.format(plate=plate, well=well, site=site, channel=channel)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pixels = generator.integers(1, 200, shape).astype(np.uint16)
                    tifffile.imwrite(path, pixels, compression="deflate")
        return folder

    return write


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    """Settings that ingest `tmp_path/images` into `tmp_path/out`, with any changes."""

    def make(**changes: Any) -> IngestSettings:
        return IngestSettings(**{"sources": (tmp_path / "images",), "out": tmp_path / "out"} | changes)

    return make


@pytest.fixture
def hash_tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder and its bytes, without what may differ from run to run."""

    def read(folder: Path) -> dict[str, bytes]:
        paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}

    return read


@pytest.fixture
def mutate() -> Callable[[bytes, int, Sequence[bytes]], bytes]:
    """Change a file as accidents and enemies do: bytes, cuts, doubled parts, and things that do not belong."""

    def change(content: bytes, seed: int, pieces: Sequence[bytes]) -> bytes:
        generator = np.random.default_rng(seed)
        changed = bytearray(content)
        for _ in range(generator.integers(1, 5)):
            at, end = sorted(generator.integers(0, len(changed) + 1, 2).tolist())
            kind = generator.integers(5)
            if kind == 0 and changed:
                changed[min(at, len(changed) - 1)] = int(generator.integers(256))
            elif kind == 1:
                del changed[at : min(end, at + 20)]
            elif kind == 2:
                changed[at:at] = changed[at : min(end, at + 60)]
            elif kind == 3:
                changed[at:at] = pieces[generator.integers(len(pieces))]
            elif generator.random() < 0.2:
                del changed[at:]
        return bytes(changed)

    return change


@pytest.fixture
def ingest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `cellvim ingest tmp_path/SOURCE --out tmp_path/out`; gives exit code, stdout and stderr."""

    def run(*flags: str, source: str | Path = "images") -> tuple[int, str, str]:
        arguments = ["ingest", str(tmp_path / source), "--out", str(tmp_path / "out"), *flags]
        monkeypatch.setattr(sys, "argv", ["cellvim", *arguments])
        code = 0
        try:
            run_to_exit_code(app)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run
