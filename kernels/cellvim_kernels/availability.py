"""What each backend needs, and whether this machine has it. Nothing is compiled to find out."""

import os
from importlib.metadata import version
from importlib.util import find_spec

import torch

from cellvim_kernels.selective_scan import mamba

TAPS = 4
MOST_STATES = {"triton": 64, "cpp": 256}
"""More states than these would not fit into a thread's registers, or its stack."""
NEWEST_UNSUPPORTED = (7, 5)
"""Compute capability below which Triton has no bf16."""


def why_absent(backend: str, device_type: str) -> str | None:
    """Say what is missing for a backend to compute on a device; None if nothing is.

    Args:
        backend: Name as in CELLVIM_KERNEL.
        device_type: As in `torch.device.type`.
    """
    if backend == "triton":
        return _why_no_triton(device_type)
    if backend == "cpp":
        return _why_no_cpp(device_type)
    if backend == "mamba":
        needs_gpu = "mamba-ssm computes on an NVIDIA GPU only"
        return mamba.why_unavailable() or (None if device_type == "cuda" else needs_gpu)
    return None


def why_beyond(backend: str, states: int, taps: int) -> str | None:
    """Say why a backend cannot take a model; None if it can.

    Args:
        backend: Name as in CELLVIM_KERNEL.
        states: State size N.
        taps: Taps K of the convolution.
    """
    if backend not in MOST_STATES:
        return None
    if taps != TAPS:
        return f"{backend} kernels convolve {TAPS} taps, this model has {taps}"
    most, is_odd = MOST_STATES[backend], backend == "triton" and states & (states - 1) != 0
    if states > most or is_odd:
        kind = "a power of two, at most" if backend == "triton" else "at most"
        return f"{backend} kernels scan {kind} {most} states, this model has {states}"
    return None


def build_of(backend: str) -> str | None:
    """What a backend's last bits depend on, besides its name and torch; None if nothing."""
    if backend == "cpp":
        from cellvim_kernels.cpp import build

        return build.fingerprint()
    return version("triton") if backend == "triton" else None


def is_interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, which takes CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _why_no_cpp(device_type: str) -> str | None:
    from cellvim_kernels.cpp import build

    return "C++ kernels compute on the CPU only" if device_type != "cpu" else build.why_unavailable()


def _why_no_triton(device_type: str) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed: pip install 'cellvim[gpu]' (Linux, NVIDIA)"
    if is_interpreted():
        return None
    return "Triton kernels need an NVIDIA GPU" if device_type != "cuda" else _why_no_gpu()


def _why_no_gpu() -> str | None:
    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU"
    if torch.version.hip is not None:
        return "Triton kernels were never run on an AMD GPU"
    capability = torch.cuda.get_device_capability()
    if capability <= NEWEST_UNSUPPORTED:
        return f"Triton kernels need compute capability 8.0 (bf16), this GPU has {'.'.join(map(str, capability))}"
    return None
