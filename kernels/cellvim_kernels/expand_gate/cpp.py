"""Expansion, LayerNorm and gate on the CPU, in C++; what they compute is told in `naive.py`."""

import ctypes

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.conv_pool.cpp import taps_by_row
from cellvim_kernels.cpp.call import address, call, sequence_argument
from cellvim_kernels.tables import Tables

CHUNK = 64
"""Positions over which one partial sum of the norm's gradients runs; as in cpu.cpp."""

Norm = tuple[Float[Tensor, " E"], Float[Tensor, " E"]] | None


class InputsArgument(ctypes.Structure):
    """`cellvim::expand_gate::Inputs` in cpu.cpp."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("xz", "y", "taps", "bias", "D", "scale", "shift"))


def expand_gate(
    xz: Float[Tensor, "b L XZ"],
    y: Float[Tensor, "2 b P E"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    norm: Norm,
    tables: Tables,
) -> Float[Tensor, "b L E"]:
    """Convolve again, average both directions' ``y[cell of token] + D v``, LayerNorm, times SiLU(z).

    Returns:
        Gated tokens in memory order.

    Raises:
        UnsupportedTapsError: The convolution has not four taps.
    """
    batch, length, _ = xz.shape
    width = D.shape[1]
    out = xz.new_empty(batch, length, width)
    taps = taps_by_row(conv_weight)
    inputs = _inputs_argument(xz, y, taps, conv_bias, D, norm)
    sequence = sequence_argument(tables, batch, width)
    call("cellvim_expand_gate", (sequence, torch.get_num_threads(), inputs, out))
    return out


def expand_gate_backward(
    dout: Float[Tensor, "b L E"],
    xz: Float[Tensor, "b L XZ"],
    y: Float[Tensor, "2 b P E"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    norm: Norm,
    tables: Tables,
    dxz: Float[Tensor, "b L XZ"],
) -> tuple[Float[Tensor, "b L E"], Float[Tensor, " E"] | None, Float[Tensor, " E"] | None]:
    """Write the gradient of z into the second half of `dxz`.

    Returns:
        Gradient of the mixed tokens before the norm, in the order of the sequence, and of the norm's scale and
        shift.

    Raises:
        UnsupportedTapsError: The convolution has not four taps.
    """
    batch, length, _ = xz.shape
    width = D.shape[1]
    dmixed = xz.new_empty(batch, length, width)
    sums = None if norm is None else xz.new_empty(batch * -(-length // CHUNK), 2, width)
    taps = taps_by_row(conv_weight)
    inputs = _inputs_argument(xz, y, taps, conv_bias, D, norm)
    sequence = sequence_argument(tables, batch, width)
    threads = torch.get_num_threads()
    call("cellvim_expand_gate_backward", (sequence, threads, inputs, dout, dxz, dmixed, sums))
    if sums is None:
        return dmixed, None, None
    dscale, dshift = sums.sum(0)
    return dmixed, dscale.clone(), dshift.clone()


def sum_cells(dmixed: Float[Tensor, "b L E"], tables: Tables) -> Float[Tensor, "G b P E"]:
    """Half the sum over each cell's tokens: the gradient of the scan's result."""
    batch, _, width = dmixed.shape
    dy = dmixed.new_empty(len(tables.share), batch, tables.cells, width)
    sequence = sequence_argument(tables, batch, width)
    call("cellvim_sum_cells", (sequence, torch.get_num_threads(), dmixed, dy))
    return dy


def _inputs_argument(
    xz: Tensor, y: Tensor, taps: Tensor, bias: Tensor, D: Tensor, norm: Norm
) -> InputsArgument:
    affine = (None, None) if norm is None else (address(norm[0]), address(norm[1]))
    return InputsArgument(*(address(each) for each in (xz, y, taps, bias, D)), *affine)
