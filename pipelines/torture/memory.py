"""Memory and processor time of a piece of work inside this process, as the kernel counts them."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def measured(work: Callable[[], Result]) -> tuple[float, int, Result]:
    """Do it; seconds of the processor, and bytes beyond what the process had before."""
    resident, started = reset_peak(), time.process_time()
    result = work()
    return time.process_time() - started, status("VmHWM") - resident, result


def reset_peak() -> int:
    """Let the kernel forget the peak of this process's memory; what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def status(name: str) -> int:
    """A line of the process's status, in bytes, for example ``VmRSS`` or ``VmHWM``."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


@contextmanager
def limited(most_bytes: int) -> Iterator[None]:
    """Whatever asks for more beyond what there is fails at once, before the machine has to swap."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
