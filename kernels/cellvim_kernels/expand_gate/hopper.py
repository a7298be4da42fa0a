"""What the kernels of expansion and gate may cost on a Hopper GPU, at the inner width of the small preset."""

from typing import Any

import torch

from cellvim_kernels.expand_gate.naive import NORM_EPS
from cellvim_kernels.expand_gate.triton import (
    MEMBERS,
    expand_gate_kernel,
    forward_tiling,
    sum_cells_kernel,
    sum_chunk,
)
from cellvim_kernels.expand_gate.triton_backward import backward_tiling, expand_gate_backward_kernel
from cellvim_kernels.expand_gate.triton_mix import STEP, Tiling
from cellvim_kernels.hopper import HopperBuild

WIDTH = 768
TOKENS = ("out", "xz", "dout", "dxz", "dmixed")
WEIGHTS = ("y", "dy", "taps", "conv_bias", "D", "norm_scale", "norm_shift", "dnorm")
INDEX = ("sequence", "cell", "members", "first")


def _build(
    name: str, kernel: Any, registers: int, *, warps: int, tokens: str, constexprs: dict[str, Any]
) -> HopperBuild:
    types = dict.fromkeys(kernel.arg_names, "i32")
    for names, kind in ((TOKENS, tokens), (WEIGHTS, "*fp32"), (INDEX, "*i32"), (constexprs, "constexpr")):
        types |= {argument: kind for argument in names if argument in types}
    return HopperBuild(name, kernel, types, constexprs, warps=warps, registers=registers)


def _row(
    name: str, kernel: Any, tiling: Tiling, registers: int, *, tokens: str = "*bf16", **given: Any
) -> HopperBuild:
    settings = {
        "E": WIDTH,
        "CHUNK": tiling.chunk,
        "CHUNKS": tiling.chunks,
        "STEP": STEP,
        "SHARES_CELLS": True,
        "HAS_NORM": True,
        "EPS": 4 * NORM_EPS,
        "FAST": tokens == "*bf16",
    }
    return _build(name, kernel, registers, warps=tiling.warps, tokens=tokens, constexprs=settings | given)


def _forward(name: str, registers: int, **given: Any) -> HopperBuild:
    tiling = forward_tiling(WIDTH, shares_cells=given.get("SHARES_CELLS", True))
    return _row(f"expand_gate {name}", expand_gate_kernel, tiling, registers, **given)


def _back(name: str, registers: int, **given: Any) -> HopperBuild:
    tiling = backward_tiling(WIDTH, torch.float32 if "tokens" in given else torch.bfloat16)
    return _row(f"expand_gate_backward {name}", expand_gate_backward_kernel, tiling, registers, **given)


def _sum(name: str, registers: int, *, is_regular: bool, tokens: str = "*bf16") -> HopperBuild:
    constexprs = {"E": WIDTH, "CHUNK": sum_chunk(WIDTH), "MEMBERS": MEMBERS, "IS_REGULAR": is_regular}
    return _build(
        f"sum_cells {name}", sum_cells_kernel, registers, warps=1, tokens=tokens, constexprs=constexprs
    )


BUILDS: tuple[HopperBuild, ...] = (
    _forward("bf16", 168),
    _forward("published", 144, SHARES_CELLS=False),
    _forward("without norm", 168, HAS_NORM=False),
    _forward("fp32", 192, tokens="*fp32"),
    _back("bf16", 168),
    _back("published", 168, SHARES_CELLS=False),
    _back("without norm", 168, HAS_NORM=False),
    _back("fp32", 176, tokens="*fp32"),
    _sum("dense", 96, is_regular=True),
    _sum("masked", 96, is_regular=False),
    _sum("fp32", 96, is_regular=True, tokens="*fp32"),
)
