"""Where the model computes, and on which kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from cellvim.errors import CellvimError, OutOfMemoryError, UsageError
from cellvim_kernels import (
    UnavailableBackendError,
    UnknownBackendError,
    check_backend_name,
    chosen_backend,
    describe_backends,
    kernel_build,
)

CPU_ALLOCATOR_WORDS = ("can't allocate memory", "not enough memory")
"""How PyTorch's CPU allocator says it, in a plain RuntimeError."""


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Take the GPU if there is one, unless told otherwise.

    Raises:
        UsageError: A GPU is asked for and none is there.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        found = "--device cuda, but PyTorch sees no GPU on this machine"
        raise UsageError(found, hint="use --device auto; `cellvim doctor` shows what is there")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")


def describe_backend() -> dict[str, Any]:
    """What `cellvim doctor` says about computing; also when CELLVIM_KERNEL asks for what is not there."""
    has_gpu = torch.cuda.is_available()
    states = describe_backends("cuda" if has_gpu else "cpu")
    return {
        "device": torch.cuda.get_device_name() if has_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "kernels": states.pop("chosen"),
        "backends": states,
    }


def name_kernels(device: torch.device, states: int) -> str:
    """Name the kernels that compute a model on a device, with what their last bits depend on.

    Args:
        device: Where.
        states: State size of the model.

    Raises:
        UsageError: CELLVIM_KERNEL names a backend that is unknown or not there.
    """
    with _explain_backend():
        return kernel_build(device.type, states)


def check_kernels(device: torch.device) -> None:
    """See that the kernels work on a device, before much else is done.

    Raises:
        UsageError: CELLVIM_KERNEL names a backend that is unknown, not there or does not work.
    """
    with _explain_backend():
        chosen_backend(device.type)


def check_kernel_name() -> None:
    """Refuse a misspelled CELLVIM_KERNEL before anything is computed.

    Raises:
        UsageError: CELLVIM_KERNEL names an unknown backend.
    """
    with _explain_backend():
        check_backend_name()


@contextmanager
def _explain_backend() -> Iterator[None]:
    try:
        yield
    except (UnknownBackendError, UnavailableBackendError) as error:
        raise UsageError(str(error), hint="unset CELLVIM_KERNEL, or set it to auto") from error


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn a failed allocation of PyTorch, NumPy or Python into an error that says what to do.

    Raises:
        OutOfMemoryError: The block asked for more memory than the GPU or the machine has.
    """
    try:
        yield
    except CellvimError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0] or "the allocation failed"
        found = f"the computation does not fit into memory: {reason}"
        hint = "use a smaller --batch-size, smaller crops (crops.crop_px, --tile-px) or a smaller preset"
        raise OutOfMemoryError(found, hint=hint) from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in CPU_ALLOCATOR_WORDS)
