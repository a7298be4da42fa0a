"""Several processes train one model, as `torchrun` starts them: each takes its slice of every step."""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cellvim.errors import CellvimError, ExitCode, UsageError
from cellvim.model import check_kernels, choose_device, explain_out_of_memory
from cellvim.terminal import explain_failure

LAUNCHER_KEYS = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LONGEST_WAIT = timedelta(hours=2)
"""How long a rank waits for another: the first one alone judges and writes the results."""
LOST_WORDS = ("closed by peer", "reset by peer", "Broken pipe", "Timed out waiting", "ncclRemoteError")
"""How gloo and NCCL say, in a RuntimeError, that the other end is gone."""


class FirstRankError(CellvimError):
    """The first rank, which alone reads and writes the run folder, could not go on."""


class LostRankError(CellvimError, ConnectionError):
    """Another rank is gone, and the step cannot be finished without it; what stopped it, it says itself."""

    exit_code = ExitCode.INTERRUPTED


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and log."""
        return self.rank == 0

    def slices(self, batch_size: int, *, parts: int, together: int) -> list[range]:
        """Samples of a step that this rank takes, part by part.

        A part is contiguous over all ranks: with pairs that are told apart from the others of their part, as in
        `align`, the number of ranks must not decide which those are.

        Args:
            batch_size: Samples per step, over all ranks.
            parts: Parts of a step, which all ranks compute together, one after the other.
            together: Successive samples that must stay in one part.

        Raises:
            UsageError: Samples cannot be dealt out evenly.
        """
        count = self.size * parts
        if batch_size % (count * together):
            pairs = f" in groups of {together}" if together > 1 else ""
            found = (
                f"batch_size={batch_size} cannot be dealt out evenly{pairs} to {self.size} rank(s) with "
                f"{parts} part(s) each (engine.accumulate)"
            )
            raise UsageError(found, hint=f"take a multiple of {count * together} as --batch-size")
        length = batch_size // count
        starts = [(part * self.size + self.rank) * length for part in range(parts)]
        return [range(start, start + length) for start in starts]

    def lead(self, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Let the first rank act while the others wait, and give its JSON-able result to all of them.

        The others leave only when it is done: a launcher ends all ranks as soon as one of them is gone.

        Raises:
            FirstRankError: On the others, if it failed; the first one raises what happened.
            OutOfMemoryError: There was no memory for it.
        """
        if not self.is_first:
            return _unpacked(_broadcast(None))
        try:
            with explain_out_of_memory():
                result = act()
        except BaseException as error:
            # What happened here is told first, even if nobody is left to hear of it.
            if self.size > 1:
                with suppress(RuntimeError):
                    _broadcast(_retold(error))
            raise
        return _unpacked(_broadcast({"result": result})) if self.size > 1 else result

    def mean(self, values: Sequence[float]) -> list[float]:
        """Average over ranks; each of them gets the same numbers."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        mean: list[float] = (total / self.size).tolist()
        return mean

    def flagged(self, slices: Sequence[range], flags: Sequence[bool]) -> list[range]:
        """Slices of the step whose flag is up, on whatever rank; `slices` are all those of this one."""
        length = len(slices[0])
        raised = [0.0] * (self.size * len(slices))
        for samples, flag in zip(slices, flags, strict=True):
            raised[samples.start // length] = float(flag)
        starts = [place * length for place, share in enumerate(self.mean(raised)) if share > 0]
        return [range(start, start + length) for start in starts]

    def any(self, *, flag: bool) -> bool:
        """Whether the flag is up on any rank."""
        return self.mean([float(flag)])[0] > 0

    def parallel(self, model: nn.Module) -> nn.Module:
        """Average gradients over ranks on the way back."""
        if self.size == 1:
            return model
        # Buckets of gradients are laid out anew after the first step, which changes last bits between a run and
        # its resumption on three ranks or more; looking for unused parameters keeps them as they are.
        return DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)


@contextmanager
def joined_ranks(wanted: Literal["auto", "cpu", "cuda"]) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other processes of the run, if a launcher started several.

    Args:
        wanted: Where to compute.

    Yields:
        The ranks, and the device of this one.

    Raises:
        UsageError: There are more ranks on this machine than GPUs, or CELLVIM_KERNEL names what is not there.
        LostRankError: Another rank stopped while this one waited for it, wherever in the block that was.
    """
    device = choose_device(wanted)
    size = int(os.environ["WORLD_SIZE"]) if _is_launched() else 1
    if size > 1 and device.type == "cuda":
        device = _own_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    # On the GPU that is this rank's: kernels are tried out where they will run.
    check_kernels(device)
    if size == 1:
        yield Ranks(), device
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _explain_lost_rank():
        distributed.init_process_group(backend, timeout=LONGEST_WAIT)
        if not is_first_rank():
            for name in ("cellvim", "cellvim_kernels"):
                logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield Ranks(distributed.get_rank(), size), device
        finally:
            distributed.destroy_process_group()


def is_first_rank() -> bool:
    """Whether this process speaks for all; by the launcher's word, as the ranks part when a run is over."""
    return os.environ.get("RANK", "0") == "0" or not _is_launched()


def _is_launched() -> bool:
    return all(key in os.environ for key in LAUNCHER_KEYS)


def _own_gpu(local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if local_rank >= count:
        found = f"rank {local_rank} of this machine has no GPU: there are {count}"
        raise UsageError(found, hint=f"start {count} processes with torchrun --nproc-per-node")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def _explain_lost_rank() -> Iterator[None]:
    """Turn a broken connection to another rank, in whatever asked for it, into an error that says so."""
    try:
        yield
    except RuntimeError as error:
        is_network = isinstance(error, distributed.DistNetworkError)
        if not is_network and not any(words in str(error) for words in LOST_WORDS):
            raise
        found = "another rank stopped or cannot be reached, and this one cannot go on alone"
        hint = "see the message of that rank; the same command goes on from the last checkpoint"
        raise LostRankError(found, hint=hint) from error


def _retold(error: BaseException) -> dict[str, Any]:
    """What the other ranks say of a failure of the first one: what the command line says there."""
    found, hint, code = explain_failure(error)
    return {"found": found, "hint": hint, "exit_code": int(code)}


def _broadcast(content: dict[str, Any] | None) -> dict[str, Any]:
    """Send JSON from the first rank to all others."""
    message = torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)
    length = torch.tensor([len(message)])
    distributed.broadcast(length, 0)
    buffer: Tensor = message if content is not None else torch.empty(int(length), dtype=torch.uint8)
    distributed.broadcast(buffer, 0)
    received: dict[str, Any] = json.loads(buffer.numpy().tobytes())
    return received


def _unpacked(message: dict[str, Any]) -> dict[str, Any]:
    if "result" in message:
        result: dict[str, Any] = message["result"]
        return result
    error = FirstRankError(f"the first rank stopped: {message['found']}", hint=message["hint"])
    error.exit_code = ExitCode(message["exit_code"])
    raise error
