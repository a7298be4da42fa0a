"""Time, memory and CUDA graphs of things that run on a GPU; wall clock and resident memory on a CPU."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Run = Callable[[], object]

WARM_UP, FEWEST = 3, 5
"""Turns that compile and fill caches, and timed turns that are taken however late it is."""
MIB = 2**20
PROCESS = Path("/proc/self")
FORGET_PEAK = "5"
"""Written to clear_refs, it makes the present memory the most so far (man 5 proc)."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one run: median and quartiles of so many turns."""

    median: float
    low: float
    high: float
    turns: int

    def __str__(self) -> str:
        digits = 1 if self.median >= 10 else 3
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Failure:
    """Why a case has no number."""

    reason: str

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        first = str(error).strip().partition("\n")[0]
        return cls(f"{type(error).__name__}: {first[:160]}")

    def __str__(self) -> str:
        return "failed"


def interleaved(
    cases: Mapping[str, Run],
    device: torch.device,
    *,
    turns: int,
    seconds: float,
    warm_up: int = WARM_UP,
    fewest: int = FEWEST,
) -> dict[str, Timing | Failure]:
    """Time cases in turns, so that what disturbs the machine hits all of them.

    Args:
        cases: What to run, by name.
        device: Where it runs.
        turns: Timed turns of each case.
        seconds: Fewer turns if these are up.
        warm_up: Turns that are not timed.
        fewest: Timed turns that are taken however late it is.

    Returns:
        Time of each case; a case that fails while it warms up fails alone.
    """
    results: dict[str, Timing | Failure] = {}
    ready: dict[str, Run] = {}
    for name, run in cases.items():
        try:
            for _ in range(warm_up):
                run()
            wait(device)
            ready[name] = run
        except Exception as error:  # noqa: BLE001 - told in the case's place; the other cases go on
            results[name] = Failure.of(error)
            give_back(device)
    taken: dict[str, list[float]] = {name: [] for name in ready}
    began = time.perf_counter()
    for turn in range(turns):
        if turn >= fewest and time.perf_counter() - began > seconds:
            break
        for name, run in ready.items():
            taken[name].append(milliseconds(run, device))
    results |= {name: summarise(times) for name, times in taken.items()}
    return {name: results[name] for name in cases}


def summarise(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4)
    return Timing(median, low, high, len(times))


def milliseconds(run: Run, device: torch.device) -> float:
    if device.type != "cuda":
        started = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - started)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    wait(device)
    start.record()
    run()
    end.record()
    wait(device)
    return float(start.elapsed_time(end))


def graph_of(run: Run, device: torch.device) -> Run:
    """Record what a run launches, to be launched at once.

    Raises:
        RuntimeError: The device has no graphs, or the run does what a graph cannot hold.
    """
    if device.type != "cuda":
        msg = "CUDA graphs need an NVIDIA GPU"
        raise RuntimeError(msg)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(side)
    wait(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def time_graph(run: Run, device: torch.device, *, turns: int, seconds: float) -> Timing | Failure | None:
    """Time a run as a CUDA graph, alone: graphs of several large cases do not fit into memory together.

    Returns:
        None where there are no CUDA graphs.
    """
    if device.type != "cuda":
        return None
    try:
        replay = graph_of(run, device)
        return interleaved({"graph": replay}, device, turns=turns, seconds=seconds)["graph"]
    except RuntimeError as error:
        return Failure.of(error)
    finally:
        give_back(device)


def peak_mib(run: Run, device: torch.device, kept: Iterable[torch.Tensor] = ()) -> float | Failure | None:
    """Most memory that a run takes, and with it tensors that it had before.

    Args:
        run: Warmed up here, so that a compiler's scratch does not count.
        device: Where it runs; a CPU does not count.
        kept: Tensors of the case that are there already: weights, states of the optimizer.

    Returns:
        None where nobody counts.
    """
    if device.type != "cuda":
        return None
    try:
        run()
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        wait(device)
    except RuntimeError as error:
        give_back(device)
        return Failure.of(error)
    grown = torch.cuda.max_memory_allocated(device) - before
    return (grown + sum(tensor.nbytes for tensor in kept)) / MIB


def resident_growth_mib(run: Run) -> float | None:
    """Most resident memory that a run adds to what this process holds before it.

    Returns:
        None where the system does not count: it is Linux that keeps a peak, and lets go of the last one.
    """
    try:
        (PROCESS / "clear_refs").write_text(FORGET_PEAK, encoding="ascii")
    except OSError:
        return None
    before = _resident_mib("VmRSS")
    run()
    return _resident_mib("VmHWM") - before


def _resident_mib(kind: str) -> float:
    # Not from getrusage: there, the peak begins with that of the process that started this one.
    lines = (PROCESS / "status").read_text(encoding="utf-8").splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith(f"{kind}:"))
    return int(kib) * 1024 / MIB


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def give_back(device: torch.device) -> None:
    """Return memory that nobody uses to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
