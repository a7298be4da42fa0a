"""A kill at any moment leaves nothing that resuming does not put right, to the byte."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader

WriteImages = Callable[..., Path]
MakeSettings = Callable[..., IngestSettings]
HashTree = Callable[[Path], dict[str, bytes]]

# Kills itself, as `kill -9` would, when it asks the disk to keep something for the N-th time.
INGEST_AND_DIE = """
import os, signal, sys
from pathlib import Path
from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates

source, out, moment = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
calls, fsync = iter(range(10**6)), os.fsync

def count(descriptor):
    if next(calls) == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)

os.fsync = count
ingest_plates(IngestSettings(sources=(source,), out=out))
"""


@pytest.mark.parametrize("moment", [1, 17, 38, 52, 63, 71, 77])
def test_killed_and_resumed_is_the_same(
    moment: int,
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    hash_tree: HashTree,
) -> None:
    source = write_images()
    ingest_plates(make_settings(out=tmp_path / "whole"))
    out = tmp_path / "killed"
    command = [sys.executable, "-c", INGEST_AND_DIE, str(source), str(out), str(moment)]
    assert subprocess.run(command, check=False).returncode == -9
    with pytest.raises((InputError, NotFoundError)):
        PlateReader(out / "P.ome.zarr")
    ingest_plates(make_settings(out=out))
    assert hash_tree(out) == hash_tree(tmp_path / "whole")
