"""The functions that each fused backend offers, one set of names for Triton and C++."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal

from torch import Tensor

FusedBackend = Literal["triton", "cpp"]
FUSED: tuple[FusedBackend, ...] = ("triton", "cpp")


@dataclass(frozen=True)
class Stages:
    """One backend's operations, forward and backward; what they compute is told beside each one's equation.

    They take and give plain tensors: autograd sees only the whole mixer, which can then keep what it needs alone.

    Args:
        chunk: Steps of the scan between kept states.
    """

    conv_pool: Callable[..., tuple[Tensor, Tensor]]
    conv_pool_backward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    selective_scan: Callable[..., tuple[Tensor, Tensor]]
    selective_scan_backward: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
    expand_gate: Callable[..., Tensor]
    expand_gate_backward: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]
    sum_cells: Callable[..., Tensor]
    add_rms_norm: Callable[..., tuple[Tensor, Tensor, Tensor]]
    add_rms_norm_backward: Callable[..., tuple[Tensor, Tensor]]
    chunk: int


MODULES = {
    "conv_pool": ("conv_pool", "conv_pool_backward"),
    "selective_scan": ("selective_scan", "selective_scan_backward"),
    "expand_gate": ("expand_gate", "expand_gate_backward", "sum_cells"),
    "add_rms_norm": ("add_rms_norm", "add_rms_norm_backward"),
}


@cache
def stages_of(backend: str) -> Stages:
    """Import a backend's operations, which may need Triton or a compiler.

    Raises:
        ImportError: The backend's package is missing.
    """
    found: dict[str, Any] = {}
    for operation, names in MODULES.items():
        module = import_module(f"cellvim_kernels.{operation}.{backend}")
        found |= {name: getattr(module, name) for name in names}
    chunk = import_module(f"cellvim_kernels.selective_scan.{backend}").CHUNK
    return Stages(**found, chunk=chunk)
