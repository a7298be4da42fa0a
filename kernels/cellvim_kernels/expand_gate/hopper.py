"""What the kernels of expansion and gate may cost on a Hopper GPU, at the inner width of the small preset."""

from typing import Any

from cellvim_kernels.expand_gate.naive import NORM_EPS
from cellvim_kernels.expand_gate.triton import (
    CHANNELS_PER_WARP,
    MEMBERS,
    expand_gate_kernel,
    sum_cells_kernel,
    sum_chunk,
)
from cellvim_kernels.expand_gate.triton_backward import CHANNELS_PER_WARP as BACKWARD_CHANNELS_PER_WARP
from cellvim_kernels.expand_gate.triton_backward import expand_gate_backward_kernel
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
    name: str, kernel: Any, channels_per_warp: int, registers: int, *, tokens: str = "*bf16", **given: Any
) -> HopperBuild:
    tiling = Tiling.of(WIDTH, channels_per_warp)
    settings = {
        "E": WIDTH,
        "CHUNK": tiling.chunk,
        "CHUNKS": tiling.chunks,
        "STEP": STEP,
        "IS_RASTER": True,
        "SHARES_CELLS": True,
        "HAS_NORM": True,
        "EPS": 4 * NORM_EPS,
        "FAST": tokens == "*bf16",
    }
    return _build(name, kernel, registers, warps=tiling.warps, tokens=tokens, constexprs=settings | given)


def _forward(name: str, registers: int, **given: Any) -> HopperBuild:
    return _row(f"expand_gate {name}", expand_gate_kernel, CHANNELS_PER_WARP, registers, **given)


def _back(name: str, registers: int, **given: Any) -> HopperBuild:
    return _row(
        f"expand_gate_backward {name}",
        expand_gate_backward_kernel,
        BACKWARD_CHANNELS_PER_WARP,
        registers,
        **given,
    )


def _sum(name: str, registers: int, *, is_regular: bool, tokens: str = "*bf16") -> HopperBuild:
    constexprs = {"E": WIDTH, "CHUNK": sum_chunk(WIDTH), "MEMBERS": MEMBERS, "IS_REGULAR": is_regular}
    return _build(
        f"sum_cells {name}", sum_cells_kernel, registers, warps=1, tokens=tokens, constexprs=constexprs
    )


BUILDS: tuple[HopperBuild, ...] = (
    _forward("in memory order", 168),
    _forward("turned or masked", 168, IS_RASTER=False),
    _forward("published", 168, IS_RASTER=False, SHARES_CELLS=False),
    _forward("without norm", 168, HAS_NORM=False),
    _forward("fp32", 168, tokens="*fp32"),
    _back("in memory order", 168),
    _back("turned or masked", 168, IS_RASTER=False),
    _back("published", 168, IS_RASTER=False, SHARES_CELLS=False),
    _back("without norm", 168, HAS_NORM=False),
    _back("fp32", 168, tokens="*fp32"),
    _sum("dense", 96, is_regular=True),
    _sum("masked", 96, is_regular=False),
    _sum("fp32", 96, is_regular=True, tokens="*fp32"),
)
