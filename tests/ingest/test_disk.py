"""A disk that fills up while a plate is written: nothing is truncated, and with more room the same command goes on."""

from pathlib import Path

import pytest

from pipelines.torture.disk import CannotMountError
from pipelines.torture.full_disks import torture_ingest_disk


def test_a_full_disk_truncates_nothing_and_is_resumed(shared: Path, tmp_path: Path) -> None:
    try:
        needs, trials = torture_ingest_disk(shared / "data", tmp_path, sizes=2, wells=2)
    except CannotMountError as error:
        pytest.skip(f"needs a small disk: {error}")
    assert [line for trial in trials for line in trial.failures] == []
    assert [trial.code for trial in trials] == [5, 5]
    # The first is too small for one field, the second holds some.
    assert trials[0].files < trials[1].files < len(needs.files)
