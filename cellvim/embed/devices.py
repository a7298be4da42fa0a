"""Several processes, each with a device and plates of its own: one per GPU, or some that share the cores."""

import logging
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from queue import SimpleQueue
from typing import Any

import torch

from cellvim.config import EmbedSettings
from cellvim.embed.parts import Part, Recipe, make_part
from cellvim.errors import CellvimError, ExitCode
from cellvim.model import compute_with, explain_out_of_memory, load_encoder
from cellvim.progress import Advance
from cellvim.terminal import explain_failure

PATIENCE_S = 5.0
"""For which a process that was asked to end is waited for before it is killed."""


class WorkerFailedError(CellvimError):
    """A worker met an error; what it says is what one process alone would have said."""


class LostWorkerError(CellvimError):
    """A worker is gone without a word."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True)
class Worker:
    """Where a process computes, and with how many threads."""

    device: str
    threads: int | None
    """None for what the machine offers."""
    readers: int


def plan_workers(settings: EmbedSettings, device: torch.device, plates: int) -> list[Worker]:
    """Say which processes embed so many plates: one per GPU or one in all, unless the settings say otherwise.

    Processes on a CPU share its threads evenly. Which process embeds a plate changes nothing in it; only another
    number of threads changes last bits.

    Args:
        settings: How many workers are wanted.
        device: Kind of device.
        plates: Of the whole run, so that a run that is resumed computes with the threads that it began with.
    """
    is_gpu = device.type == "cuda"
    gpus = torch.cuda.device_count() if is_gpu else 0
    count = max(1, min(settings.workers or gpus or 1, plates))
    if is_gpu:
        return [Worker(f"cuda:{index % gpus}", None, settings.readers) for index in range(count)]
    threads = max(1, torch.get_num_threads() // count)
    return [Worker("cpu", threads, max(1, settings.readers // count))] * count


def embed_in_processes(
    parts: Sequence[Part], workers: Sequence[Worker], recipe: Recipe, *, advance: Advance
) -> None:
    """Make parts in several processes; whoever is free gets the next.

    The first failure, or whatever is raised here by a signal, ends all processes. Parts that are finished stay.

    Raises:
        WorkerFailedError: A worker met an error.
        LostWorkerError: A worker was killed.
    """
    coming = deque(parts)
    with _started(workers, recipe) as started:
        while started:
            for connection in wait(list(started)):
                assert isinstance(connection, Connection)  # noqa: S101 - only such are waited for
                kind, payload = _receive(connection, started[connection])
                if kind == "ready" and coming:
                    _send(connection, started[connection], coming.popleft())
                elif kind == "ready":
                    _send(connection, started[connection], None)
                    started.pop(connection).join(PATIENCE_S)
                else:
                    _take(kind, payload, advance)


@contextmanager
def _started(workers: Sequence[Worker], recipe: Recipe) -> Iterator[dict[Connection, SpawnProcess]]:
    """Start the processes; none of them outlives the block."""
    # Spawned, as a process that has read a plate must not be forked.
    context = get_context("spawn")
    log_level = logging.getLogger("cellvim").getEffectiveLevel()
    processes: list[SpawnProcess] = []
    started: dict[Connection, SpawnProcess] = {}
    try:
        for worker in workers:
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, worker, recipe, log_level), daemon=True)
            with _no_ctrl_c():
                process.start()
            # Only the worker holds this end now, and that it is closed says that the worker is gone.
            there.close()
            processes.append(process)
            started[here] = process
        yield started
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Keep SIGINT back: what is started meanwhile never gets it, as Ctrl-C on a terminal is told to all processes."""
    # It would let SIGINT through again, were it started with the first worker.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, process: SpawnProcess) -> tuple[str, Any]:
    try:
        kind, payload = connection.recv()
    except (EOFError, OSError) as gone:
        raise _lost(process) from gone
    return kind, payload


def _send(connection: Connection, process: SpawnProcess, part: Part | None) -> None:
    try:
        connection.send(part)
    except OSError as gone:
        raise _lost(process) from gone


def _lost(process: SpawnProcess) -> LostWorkerError:
    process.join(PATIENCE_S)
    found = f"a worker is gone without a word (exit code {process.exitcode})"
    hint = "a system short of memory kills processes: use fewer --workers; the same command goes on"
    return LostWorkerError(found, hint=hint)


def _take(kind: str, payload: Any, advance: Advance) -> None:
    if kind == "advance":
        advance(payload)
    elif kind == "log":
        logging.getLogger(payload.name).handle(payload)
    else:
        error = WorkerFailedError(payload["found"], hint=payload["hint"])
        error.exit_code = ExitCode(payload["exit_code"])
        error.add_note(payload["trace"])
        raise error


class _Line(QueueHandler):
    """A worker's end of the line to the parent; log records go through it, too, and through no queue."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(SimpleQueue())
        self.connection = connection
        self._turn = threading.Lock()

    def send(self, kind: str, payload: Any = None) -> None:
        # Reading threads log as well, and two messages must not mix.
        with self._turn:
            self.connection.send((kind, payload))

    def enqueue(self, record: logging.LogRecord) -> None:
        self.send("log", record)


def _serve(connection: Connection, worker: Worker, recipe: Recipe, log_level: int) -> None:
    """Make one part after another, as the parent deals them out."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    line = _Line(connection)
    logger = logging.getLogger("cellvim")
    logger.setLevel(log_level)
    logger.addHandler(line)
    logger.propagate = False
    try:
        with explain_out_of_memory():
            _work(line, worker, recipe)
    except Exception as error:  # noqa: BLE001 - told by the parent, in whose words a run ends
        found, hint, code = explain_failure(error)
        trace = "".join(traceback.format_exception(error))
        line.send("failed", {"found": found, "hint": hint, "exit_code": int(code), "trace": trace})


def _work(line: _Line, worker: Worker, recipe: Recipe) -> None:
    compute_with(worker.threads)
    device = torch.device(worker.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    encoder, _ = load_encoder(recipe.settings.model, device)
    own = replace(recipe, settings=recipe.settings.model_copy(update={"readers": worker.readers}))

    def advance(units: int = 1) -> None:
        line.send("advance", units)

    while True:
        line.send("ready")
        part = line.connection.recv()
        if part is None:
            return
        make_part(part, encoder, own, advance=advance)


def _end_with_parent() -> None:
    """Leave nothing running when the parent is killed, which can then ask nobody to end."""
    parent = parent_process()
    assert parent is not None  # noqa: S101 - only workers wait for a parent
    parent.join()
    os._exit(int(ExitCode.INTERRUPTED))
