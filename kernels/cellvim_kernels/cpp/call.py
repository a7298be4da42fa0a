"""Hand tensors to the C++ functions."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from cellvim_kernels.cpp.build import load
from cellvim_kernels.tables import Tables

Argument = Tensor | ctypes.Structure | int | None


class UnsupportedTensorError(TypeError):
    """A tensor is not as the C++ kernels read it.

    Args:
        dtype: Its type.
        strides: Its strides.
        device: Where it lies.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.dtype, self.strides, self.device = tensor.dtype, tensor.stride(), tensor.device
        super().__init__(
            f"C++ kernels take contiguous float32 tensors on the CPU, got {self.dtype} with strides "
            f"{self.strides} on {self.device}"
        )


class SequenceArgument(ctypes.Structure):
    """`cellvim::Sequence` in sequence.hpp."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("memory", "cell", "members", "first", "share")),
        *(
            (name, ctypes.c_int64)
            for name in ("tables", "directions", "batch", "length", "cells", "width")
        ),
    )  # fmt: skip


def sequence_argument(tables: Tables, batch: int, width: int) -> SequenceArgument:
    """Describe a sequence; the tables must outlive the call that it is for.

    Args:
        tables: Index tables of the layout.
        batch: Number of samples.
        width: Inner width E.
    """
    shared, length = tables.sequence.shape
    parts = (tables.sequence, tables.cell, tables.members, tables.first, tables.share)
    return SequenceArgument(
        *(address(part) for part in parts),
        shared,
        len(tables.share),
        batch,
        length,
        tables.cells,
        width,
    )


def call(function: str, arguments: Sequence[Argument]) -> None:
    """Call a function that returns nothing. Tensors go by address, structures by reference, numbers as int64.

    Raises:
        CompileUnavailableError: The kernels cannot be compiled here.
        UnsupportedTensorError: A tensor is no contiguous float32 one on the CPU.
    """
    getattr(load(), function)(*(_passed(argument) for argument in arguments))


def address(tensor: Tensor) -> int:
    """Where a tensor's first element lies.

    Raises:
        UnsupportedTensorError: The tensor is no contiguous float32 or int32 one on the CPU.
    """
    is_plain = tensor.dtype in (torch.float32, torch.int32) and tensor.is_contiguous()
    if not is_plain or tensor.device.type != "cpu":
        raise UnsupportedTensorError(tensor)
    return tensor.data_ptr()


def _passed(argument: Argument) -> object:
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(address(argument))
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.byref(argument)
