"""Both scans on the CPU, in C++; what they compute is told in `naive.py`."""

import ctypes
import math

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.cpp.call import address, call

CHUNK = 16
"""Steps between kept states; as in cpu.cpp."""
PIECE = 128
"""Width of the pieces over which dB and dC are summed; as in cpu.cpp."""
MOST_STATES = 256
LOG2_E = math.log2(math.e)


class UnsupportedStateError(ValueError):
    """There are more states than the kernels are written for.

    Args:
        states: Their number.
    """

    def __init__(self, states: int) -> None:
        self.states = states
        super().__init__(f"C++ kernels scan up to {MOST_STATES} states, got {states}")


class ScanArgument(ctypes.Structure):
    """`cellvim::selective_scan::Scan` in cpu.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("u", "step", "bias", "rates", "B", "C")),
        *((name, ctypes.c_int64 * 3) for name in ("B_strides", "C_strides")),
        *((name, ctypes.c_int64) for name in ("batch", "cells", "width", "states")),
    )


class GradientsArgument(ctypes.Structure):
    """`cellvim::selective_scan::Gradients` in cpu.cpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("dy", "starts")),
        ("dy_directions", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("du", "dstep", "dA", "dB", "dC")),
    )


def selective_scan(
    u: Float[Tensor, "2 b P E"],
    step: Float[Tensor, "2 b P E"],
    dt_bias: Float[Tensor, "2 E"],
    A: Float[Tensor, "2 E N"],
    B: Float[Tensor, "2 b P N"],
    C: Float[Tensor, "2 b P N"],
    keeps_states: bool,  # noqa: FBT001 - the same signature on every backend
) -> tuple[Float[Tensor, "2 b P E"], Tensor]:
    """Scan with ``delta = softplus(step + dt_bias)``, forward from the first cell and backward from the last.

    Args:
        u: Input of each cell.
        step: Step size before bias and softplus.
        dt_bias: Added to it.
        A: Decay rates, all negative.
        B: Input projection; only its last dimension must be contiguous.
        C: Output projection, likewise.
        keeps_states: Whether there will be a way back.

    Returns:
        Result in natural order, and the state before every CHUNK-th step, (2, b, chunks, N, E), if kept.

    Raises:
        UnsupportedStateError: There are more than 256 states.
    """
    _, batch, cells, width = u.shape
    states = A.shape[-1]
    y = torch.empty_like(u)
    chunks = -(-cells // CHUNK)
    starts = u.new_empty((2, batch, chunks, states, width) if keeps_states else 0)
    rates = _rates(A)
    scan = _scan_argument(u, step, dt_bias, rates, B, C)
    call("cellvim_selective_scan", (scan, torch.get_num_threads(), y, starts if keeps_states else None))
    return y, starts


def selective_scan_backward(
    dy: Float[Tensor, "G b P E"],
    u: Float[Tensor, "2 b P E"],
    step: Float[Tensor, "2 b P E"],
    dt_bias: Float[Tensor, "2 E"],
    A: Float[Tensor, "2 E N"],
    B: Float[Tensor, "2 b P N"],
    C: Float[Tensor, "2 b P N"],
    starts: Float[Tensor, "2 b chunks N E"],
) -> tuple[
    Float[Tensor, "2 b P E"],
    Float[Tensor, "2 b P E"],
    Float[Tensor, "2 E N"],
    Float[Tensor, "2 b P N"],
    Float[Tensor, "2 b P N"],
]:
    """Reverse the scan; `dy` has one entry for both directions, or one for each.

    Returns:
        Gradients of u, step, A, B and C.

    Raises:
        UnsupportedStateError: There are more than 256 states.
    """
    _, batch, cells, width = u.shape
    states, pieces = A.shape[-1], -(-width // PIECE)
    du, dstep = torch.empty_like(u), torch.empty_like(u)
    dA = u.new_empty(2, batch, states, width)
    dB, dC = (u.new_empty(pieces, 2, batch, cells, states) for _ in "BC")
    rates = _rates(A)
    scan = _scan_argument(u, step, dt_bias, rates, B, C)
    results = (address(each) for each in (du, dstep, dA, dB, dC))
    gradients = GradientsArgument(address(dy), address(starts), len(dy), *results)
    call("cellvim_selective_scan_backward", (scan, torch.get_num_threads(), gradients))
    return du, dstep, dA.sum(1).transpose(1, 2).contiguous(), dB.sum(0), dC.sum(0)


def _rates(A: Float[Tensor, "2 E N"]) -> Float[Tensor, "2 N E"]:
    """Rates of ``exp2``, with E contiguous."""
    if A.shape[-1] > MOST_STATES:
        raise UnsupportedStateError(A.shape[-1])
    return (A * LOG2_E).transpose(1, 2).contiguous()


def _scan_argument(
    u: Tensor, step: Tensor, dt_bias: Tensor, rates: Tensor, B: Tensor, C: Tensor
) -> ScanArgument:
    _, batch, cells, width = u.shape
    # Views of the projection's result: rows are contiguous, their strides are passed.
    rows = [address(part[0, 0, 0]) if part.numel() else 0 for part in (B, C)]
    strides = [(ctypes.c_int64 * 3)(*part.stride()[:3]) for part in (B, C)]
    parts = (address(each) for each in (u, step, dt_bias, rates))
    return ScanArgument(*parts, *rows, *strides, batch, cells, width, rates.shape[1])
