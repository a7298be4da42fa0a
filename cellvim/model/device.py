"""Where the model computes, and on which kernels."""

from typing import Any, Literal

import torch

from cellvim.errors import UsageError
from cellvim_kernels import UnknownBackendError, chosen_backend


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
    """What `cellvim doctor` says about computing."""
    has_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if has_gpu else "cpu",
        "threads": torch.get_num_threads(),
        "kernels": choose_backend(),
    }


def choose_backend() -> str:
    """Name of the kernels in use.

    Raises:
        UsageError: CELLVIM_KERNEL names an unknown backend.
    """
    try:
        return chosen_backend()
    except UnknownBackendError as error:
        raise UsageError(str(error), hint="unset CELLVIM_KERNEL, or set it to auto") from error
