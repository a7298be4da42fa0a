"""A kill at any moment leaves nothing that resuming does not put right, to the byte."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellvim.config import IngestSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader, verify_plate
from pipelines.torture.ingest import torture_ingest

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


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.97])
def test_killed_and_resumed_is_the_same(
    share: float,
    write_images: WriteImages,
    make_settings: MakeSettings,
    tmp_path: Path,
    hash_tree: HashTree,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, calls, fsync = write_images(), [], os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (calls.append(descriptor), fsync(descriptor)))
        ingest_plates(make_settings(out=tmp_path / "whole"))
    out, moment = tmp_path / "killed", int(share * len(calls))
    command = [sys.executable, "-c", INGEST_AND_DIE, str(source), str(out), str(moment)]
    assert subprocess.run(command, check=False).returncode == -9
    try:
        PlateReader(out / "P.ome.zarr")
    except (InputError, NotFoundError):
        assert share < 0.9
    else:
        # Everything had its place, and only folders were still to be flushed.
        assert verify_plate(out / "P.ome.zarr") == []
    ingest_plates(make_settings(out=out))
    assert hash_tree(out) == hash_tree(tmp_path / "whole")


def test_the_command_killed_at_random_moments_leaves_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    campaign = torture_ingest(shared / "data", tmp_path, kills=3, seed=2, wells=2)
    assert campaign.is_passed, campaign
    assert campaign.count("SIGKILL") == 3
    assert {kill.sent for kill in campaign.kills} == {"SIGKILL", "SIGTERM", "SIGINT"}
