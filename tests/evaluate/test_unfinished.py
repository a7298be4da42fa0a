"""An evaluation that ended while it wrote: the same command goes on, any other is refused."""

from pathlib import Path

import pytest

from cellvim.atomic import write_json
from cellvim.config import EvaluateSettings
from cellvim.errors import OutputExistsError
from cellvim.evaluate.outputs import METRICS, REPORT, RUN, UNFINISHED, replaced_results, require_own_or_empty


class DiskFullError(OSError):
    """Stands for whatever ends a run."""


def finish(out: Path, token: str) -> None:
    with replaced_results(out, token):
        write_json(out / METRICS, {"of": token})
        write_json(out / RUN, {"facts": {"token": token}})


def break_off(out: Path, token: str) -> None:
    with replaced_results(out, token):
        write_json(out / METRICS, {"of": token})
        raise DiskFullError


@pytest.mark.parametrize("had_results", [False, True])
def test_only_the_run_that_was_broken_off_may_go_on(tmp_path: Path, *, had_results: bool) -> None:
    settings = EvaluateSettings(tables=(Path("t.parquet"),), out=tmp_path)
    if had_results:
        finish(tmp_path, "ours")
    with pytest.raises(DiskFullError):
        break_off(tmp_path, "ours")
    assert not (tmp_path / RUN).exists()
    with pytest.raises(OutputExistsError, match=r"metrics\.json of other inputs"):
        require_own_or_empty(settings, "theirs", [])
    require_own_or_empty(settings, "ours", [])
    (tmp_path / ".tmp-7-report.html").touch()
    finish(tmp_path, "ours")
    assert {path.name for path in tmp_path.iterdir()} == {METRICS, RUN}


def test_without_a_mark_or_a_record_results_are_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / REPORT).touch()
    settings = EvaluateSettings(tables=(Path("t.parquet"),), out=tmp_path)
    with pytest.raises(OutputExistsError):
        require_own_or_empty(settings, "ours", [])
    assert not (tmp_path / UNFINISHED).exists()
