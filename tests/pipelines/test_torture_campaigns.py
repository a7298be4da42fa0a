"""A small sample of every campaign against hostile input and decay, and that each of their judges can say no."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cellvim.errors import ExitCode
from pipelines.torture import bitrot, checkpoints, doors, scripts
from pipelines.torture.bitrot import Flip, Rot, draw_bits, rot_section, torture_bits
from pipelines.torture.calling import Ended, call
from pipelines.torture.mutants import figure_rows
from pipelines.torture.payloads import PAYLOADS
from pipelines.torture.soak import judge_flatness, soak_section
from pipelines.torture.soak_commands import Killed
from pipelines.torture.soak_plates import make_plate, write_models
from pipelines.torture.soak_process import Sample, list_leftovers, list_temporary, stage_commands
from pipelines.torture.trial import Verdict

TOLD = "error: it is not a model\nhint: take another\n"


def test_no_flipped_bit_of_a_plate_is_missed(shared: Path, tmp_path: Path) -> None:
    rot = torture_bits(shared / "data", tmp_path / "out", flips=40, seed=5, wells=1)
    section = rot_section(rot, "somewhere")
    assert list(section.failures) == []
    assert rot.is_sound
    assert {bitrot.kind_of(name) for name in rot.sizes} == set(bitrot.KINDS)
    # Forty are not the thousand that were asked for.
    assert not section.rows[0].is_met


def test_a_bit_that_is_missed_and_a_plate_that_is_not_sound_fail() -> None:
    found = [Flip("P.ome.zarr/zarr.json", 3, is_found=True)] * 1000
    assert rot_section(Rot({"P.ome.zarr/zarr.json": 1}, found, is_sound=True), "").rows[0].is_met
    missed = [*found[1:], Flip("P.ome.zarr/zarr.json", 7, is_found=False)]
    for flips, is_sound in ((missed, True), (found, False)):
        section = rot_section(Rot({"P.ome.zarr/zarr.json": 1}, flips, is_sound), "")
        assert len(section.failures) == 1
        assert not section.rows[0].is_met


def test_every_file_loses_a_bit_and_no_bit_lies_outside() -> None:
    sizes = {"large": 10_000, "small": 3, "one": 1}
    drawn = list(draw_bits(sizes, 400, seed=1))
    assert drawn == list(draw_bits(sizes, 400, seed=1))
    assert [name for name, _ in drawn[:3]] == list(sizes)
    assert all(0 <= bit < 8 * sizes[name] for name, bit in drawn)
    assert 40 < sum(name == "one" for name, _ in drawn) < 120


def test_no_canary_of_a_checkpoint_sings_but_for_a_careless_reader(tmp_path: Path) -> None:
    names = ("popen", "state setter")
    singing, visits = checkpoints.torture_checkpoints(tmp_path / "out", names=names, is_forced=(True,))
    assert singing == 2
    assert [visit.failure for visit in visits] == [None] * 8
    section = checkpoints.checkpoints_section(singing, visits, "somewhere")
    assert "| `cellvim embed --model RUN` | 2 | 0 | 2 | 0 |" in section.body
    assert not section.rows[0].is_met


@pytest.mark.parametrize(
    ("has_sung", "code", "words", "has_output"),
    [
        (True, 3, TOLD, False),
        (False, 70, TOLD, False),
        (False, 0, "done", True),
        (False, 3, f"Traceback\n{TOLD}", False),
        (False, 3, "error: it is not a model\n", False),
        (False, 3, TOLD, True),
    ],
)
def test_whatever_else_a_checkpoint_does_is_a_failure(
    has_sung: bool, code: int, words: str, has_output: bool
) -> None:
    good = checkpoints.Visit("embed", "popen", False, Ended(3, TOLD), False)
    bad = checkpoints.Visit("embed", "popen", has_sung, Ended(code, words), has_output)
    assert good.failure is None
    assert bad.failure is not None
    assert checkpoints.checkpoints_section(10, [good], "").rows[0].is_met
    assert not checkpoints.checkpoints_section(10, [good, bad], "").rows[0].is_met
    assert not checkpoints.checkpoints_section(9, [good], "").rows[0].is_met


def test_names_at_the_doors_behind_ingest_lead_nowhere(shared: Path, tmp_path: Path) -> None:
    trials, bombs = doors.torture_doors(tmp_path / "out", data=shared / "data", step=25)
    assert [trial.failure for trial in (*trials, *bombs)] == [None] * (len(trials) + len(bombs))
    assert len({trial.door for trial in trials}) == 7
    assert all(bomb.end.code == ExitCode.BAD_INPUT for bomb in bombs)
    escaped = doors.Trial("a table", "../x", Ended(0, ""), "x was made outside of the output")
    crashed = doors.Trial("a table", "../x", Ended(70, TOLD), None)
    slow = doors.Trial("a table", "../x", Ended(3, TOLD), None, seconds=9.0)
    for bad in (escaped, crashed, slow):
        assert len(doors.doors_section([*trials, bad], bombs, "").failures) == 1
    good = doors.Trial("a table", "../x", Ended(3, TOLD), None)
    assert doors.doors_section([good] * 200, bombs, "").rows[0].is_met
    assert not doors.doors_section([good] * 199, bombs, "").rows[0].is_met


@pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome"))), reason="needs the system's Chromium"
)
def test_the_browser_tells_a_name_that_runs_from_one_that_is_shown(tmp_path: Path) -> None:
    name = PAYLOADS[0]
    raw, escaped = tmp_path / "raw.html", tmp_path / "escaped.html"
    raw.write_text(f"<!doctype html><body><main>{name}<img src=http://127.0.0.1:9/a></main>")
    escaped.write_text(f"<!doctype html><body><main>{name.replace('<', '&lt;')}</main>")

    def look() -> list[scripts.Visit]:
        with scripts.chromium() as browser:
            return [scripts.visit_page(browser, page.stem, page, (name,)) for page in (raw, escaped)]

    # In a thread of its own: a browser of other tests may still be open in this one, and Playwright allows one each.
    with ThreadPoolExecutor(1) as thread:
        acted, quiet = thread.submit(look).result()
    assert (acted.executions, acted.requests, acted.injected) == (1, ["http://127.0.0.1:9/a"], 1)
    assert (quiet.is_quiet, quiet.shown) == (True, 1)
    assert scripts.scripts_section(21, [quiet], "").rows[0].is_met
    assert not scripts.scripts_section(21, [quiet, acted], "").rows[0].is_met
    assert not scripts.scripts_section(0, [quiet], "").rows[0].is_met


def test_a_plate_goes_through_all_stages_and_leaves_nothing_lying_about(tmp_path: Path) -> None:
    plate = make_plate(tmp_path, tmp_path / "plate", 0)
    models = write_models(tmp_path / "models")
    for arguments in stage_commands(plate, models[plate.kind], tmp_path / "plate"):
        ended = call(arguments)
        assert ended.code == 0, ended.words
    assert list_leftovers(tmp_path / "plate") == ()
    (tmp_path / "plate/report/lock").touch()
    (tmp_path / "plate/tables/wells.parquet.parts").mkdir()
    assert len(list_leftovers(tmp_path / "plate")) == 2
    (tmp_path / "torchinductor_me").mkdir()
    assert list_temporary(tmp_path) == {str(tmp_path / "plate"), str(tmp_path / "models")}


def samples(grows: Callable[[float], float] = lambda _: 0.0, **changes: int) -> list[Sample]:
    """A hundred plates in half an hour, with some noise; `grows` is in MiB of the hours passed."""
    return [
        Sample(
            number, "drawn", 18.0 * number, int((900 + 7 * (number % 3) + grows(number / 200)) * 2**20),
            15 + changes.get("handles", 0) * number // 50, 24 + number % 3, (), 16 * number,
        )
        for number in range(100)
    ]  # fmt: skip


def test_a_leak_is_told_from_noise_and_from_the_warm_up() -> None:
    assert judge_flatness(samples()).is_flat
    assert judge_flatness(samples(lambda hours: 500 * min(hours, 0.08))).is_flat
    leak = judge_flatness(samples(lambda hours: 40 * hours))
    assert leak.low < 40 < leak.high
    assert not leak.is_flat
    assert not judge_flatness(samples(handles=1)).is_flat
    for minutes, is_met in ((30.0, True), (5.0, False)):
        assert soak_section(samples(), [Killed(3, (), None)], minutes, "").rows[0].is_met == is_met
    for killed in (Killed(3, ("x/lock",), None), Killed(3, (), "exit 70")):
        section = soak_section(samples(), [killed], 30.0, "")
        assert len(section.failures) == 1
        assert not section.rows[0].is_met


def test_figures_are_met_by_as_many_trials_as_were_asked_for() -> None:
    def verdicts(kind: str, count: int, verdict: str = "refused") -> list[Verdict]:
        return [Verdict(n, "P", kind, "", verdict, "", 0.1, 1000) for n in range(count)]

    bombs = [*verdicts("TIFF bomb", 3), *verdicts("XML bomb", 10), *verdicts("way out", 200)]
    good = [*verdicts("tiff", 5000), *bombs]
    assert [row.is_met for row in figure_rows(good)] == [True] * 4
    assert [row.is_met for row in figure_rows(good[1:])] == [False, True, True, True]
    assert [row.is_met for row in figure_rows(good[:-1])] == [True, True, True, False]
    for place, kind in enumerate(("tiff", "TIFF bomb", "XML bomb", "way out")):
        rows = figure_rows([*good, *verdicts(kind, 1, "broken")])
        assert [number for number, row in enumerate(rows) if not row.is_met] == [place]
