"""Several processes: who computes where, who gets which plate, how they end, and that none of it shows in the table."""

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.config import EmbedSettings
from cellvim.embed import devices, embed_plates
from cellvim.embed.devices import (
    LostWorkerError,
    Worker,
    WorkerFailedError,
    embed_in_processes,
    plan_workers,
)
from cellvim.embed.parts import Recipe
from cellvim.errors import ExitCode
from cellvim.model import load_encoder

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def settings(make_plate: Any, model: Path, tmp_path: Path) -> EmbedSettings:
    plates = [make_plate(name, wells=("A01", "B02"), sites=1) for name in ("P1", "P2", "P3", "P4")]
    content = {"plates": [plate.path for plate in plates], "model": model, "out": tmp_path / "e.parquet"}
    return EmbedSettings.checked({**content, "device": "cpu", "readers": 8})


def test_processes_on_a_cpu_share_its_threads_and_its_readers(
    settings: EmbedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert plan_workers(settings, CPU, 20) == [Worker("cpu", 16, 8)]
    four = settings.model_copy(update={"workers": 4})
    assert plan_workers(four, CPU, 20) == [Worker("cpu", 4, 2)] * 4
    # No more processes than plates, and no process without a thread.
    assert plan_workers(four, CPU, 1) == [Worker("cpu", 16, 8)]
    many = plan_workers(settings.model_copy(update={"workers": 99}), CPU, 99)
    assert {(worker.threads, worker.readers) for worker in many} == {(1, 1)}


def test_each_gpu_gets_a_process(settings: EmbedSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def used(workers: int | None, plates: int) -> list[str]:
        chosen = settings.model_copy(update={"workers": workers})
        return [worker.device for worker in plan_workers(chosen, CUDA, plates)]

    assert used(None, 20) == ["cuda:0", "cuda:1", "cuda:2"]
    assert used(None, 2) == ["cuda:0", "cuda:1"]
    assert used(1, 20) == ["cuda:0"]
    assert used(4, 20) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]


class Acted:
    """Workers played by threads: each runs `play` with its end of the line."""

    exitcode = -9

    def __init__(self, *plays: Any) -> None:
        self.plays = plays
        self.is_ended = False

    def join(self, _timeout: float | None = None) -> None: ...

    @contextmanager
    def started(self, *_: Any) -> Iterator[dict[Connection, Any]]:
        lines: dict[Connection, Any] = {}
        for play in self.plays:
            here, there = Pipe()
            lines[here] = self
            threading.Thread(target=play, args=(there,), daemon=True).start()
        try:
            yield lines
        finally:
            self.is_ended = True


def act(
    monkeypatch: pytest.MonkeyPatch, *plays: Any, parts: list[Any], advance: Any = lambda *_: None
) -> Acted:
    acted = Acted(*plays)
    monkeypatch.setattr(devices, "_started", acted.started)
    try:
        embed_in_processes(parts, [], None, advance=advance)  # type: ignore[arg-type]
    finally:
        assert acted.is_ended
    return acted


def test_whoever_is_free_gets_the_next_plate(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, list[int]] = {"quick": [], "slow": []}
    others_are_done = threading.Event()

    def worker(name: str, line: Connection) -> None:
        while True:
            line.send(("ready", None))
            part = line.recv()
            if part is None:
                return
            taken[name].append(part)
            line.send(("advance", 1))
            if name == "slow":
                assert others_are_done.wait(10)
            elif len(taken["quick"]) == 9:
                others_are_done.set()

    done: list[int] = []
    plays = [lambda line: worker("slow", line), lambda line: worker("quick", line)]
    act(monkeypatch, *plays, parts=list(range(10)), advance=done.append)
    assert sorted(taken["quick"] + taken["slow"]) == list(range(10))
    assert len(taken["slow"]) == 1
    assert sum(done) == 10


def test_the_first_failure_ends_all_in_the_words_of_who_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = {"found": "the disk is full", "hint": "make room", "exit_code": 5, "trace": "Traceback"}

    def idle(line: Connection) -> None:
        with suppress(EOFError):
            line.recv()

    with pytest.raises(WorkerFailedError, match="the disk is full") as failed:
        act(monkeypatch, idle, lambda line: line.send(("failed", failure)), parts=[1, 2])
    assert failed.value.exit_code == ExitCode.DISK
    assert failed.value.hint == "make room"


def test_a_worker_that_is_killed_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(line: Connection) -> None:
        line.send(("ready", None))
        line.recv()
        line.close()

    with pytest.raises(LostWorkerError, match=r"gone without a word \(exit code -9\)") as lost:
        act(monkeypatch, die, parts=[1])
    assert lost.value.exit_code == ExitCode.INTERRUPTED


def test_a_worker_that_is_killed_while_it_waits_for_a_plate_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_dead = threading.Event()

    class Late:
        def __reduce__(self) -> Any:
            assert is_dead.wait(10)
            return str, ("part",)

    def die(line: Connection) -> None:
        line.send(("ready", None))
        line.close()
        is_dead.set()

    with pytest.raises(LostWorkerError, match="gone without a word"):
        act(monkeypatch, die, parts=[Late()])


def test_what_a_worker_logs_is_logged_here(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def talk(line: Connection) -> None:
        record = logging.makeLogRecord(
            {"name": "cellvim.embed.plate", "msg": "field left out", "levelno": 30}
        )
        line.send(("log", record))
        line.send(("ready", None))

    act(monkeypatch, talk, parts=[])
    assert caplog.messages == ["field left out"]


KILLED = """
import os, signal, sys
from multiprocessing import active_children
from cellvim.config import EmbedSettings
from cellvim.embed import devices, embed_plates
send, sent = devices._send, []

def send_until_a_plate_is_done(connection, process, part):
    sent.append(part)
    # Two have a plate, and one of them has finished it: the last thing this process does is to say who they are.
    if len(sent) == 3:
        print(*(child.pid for child in active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    send(connection, process, part)

devices._send = send_until_a_plate_is_done
embed_plates(EmbedSettings.model_validate_json(sys.argv[1]))
"""


def test_killed_with_two_workers_and_resumed_by_one_process_is_the_table_of_that_one(
    settings: EmbedSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = settings.model_copy(update={"out": tmp_path / "whole.parquet"})
    embed_plates(whole)
    two = settings.model_copy(update={"workers": 2})
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, two.model_dump_json()], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    children = [int(pid) for pid in killed.stdout.split()]
    assert len(children) == 2
    until = time.monotonic() + 60
    while any(map(is_running, children)):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert not two.out.exists()
    with caplog.at_level(logging.INFO, "cellvim.embed"):
        embed_plates(settings)
    # What workers had finished is part of the table.
    assert any("is embedded already" in message for message in caplog.messages)
    assert two.out.read_bytes() == whole.out.read_bytes()
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("e.")} == {
        "e.parquet", "e.run.json", "e.thumbnails.parquet",
    }  # fmt: skip


def test_a_worker_says_why_it_cannot_work(
    settings: EmbedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a process of its own would run; that such processes start and work is shown above.
    monkeypatch.setattr(devices, "_end_with_parent", lambda: None)
    logger = logging.getLogger("cellvim")
    for name in ("level", "propagate", "handlers"):
        monkeypatch.setattr(logger, name, getattr(logger, name))
    monkeypatch.setattr(logger, "handlers", [])
    recipe = Recipe(settings.model_copy(update={"model": tmp_path / "nowhere"}), 32, "cpp")

    def fail(line: Connection) -> None:
        devices._serve(line, Worker("cpu", 1, 1), recipe, logging.INFO)

    with pytest.raises(WorkerFailedError, match="no model weights at") as failed:
        act(monkeypatch, fail, parts=[])
    assert failed.value.exit_code == ExitCode.BAD_INPUT
    assert "NotFoundError" in failed.value.__notes__[0]


def test_a_model_computes_on_the_device_of_its_worker(
    settings: EmbedSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def load(path: Path, device: torch.device) -> Any:
        chosen.append(device)
        return load_encoder(path)

    monkeypatch.setattr(devices, "load_encoder", load)
    here, there = Pipe()
    here.send(None)
    devices._work(devices._Line(there), Worker("cuda:1", 1, 4), Recipe(settings, 32, "triton"))
    assert chosen == [torch.device("cuda:1")] * 2
    assert here.recv() == ("ready", None)


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
