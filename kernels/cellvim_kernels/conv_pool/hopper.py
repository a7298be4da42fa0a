"""What the kernels of convolution and pooling may cost on a Hopper GPU, at the inner width of the small preset."""

from typing import Any

from cellvim_kernels.conv_pool.triton import (
    GATHER_LANE_ELEMENTS,
    LANE_ELEMENTS,
    pool_members_kernel,
    pool_rows_kernel,
    walk_shape,
)
from cellvim_kernels.conv_pool.triton_backward import LANE_BYTES, walk_back_kernel
from cellvim_kernels.conv_pool.triton_conv import channel_block
from cellvim_kernels.hopper import HopperBuild

WIDTH = 768
TOKENS = ("xz", "dmixed", "dxz")
INDEX = ("sequence", "cell", "members", "first")
NUMBERS = ("batch", "L", "P", "row_tokens", "interleave", "segment", "segments")


def _build(
    name: str, kernel: Any, registers: int, *, lane_elements: int, tokens: str = "*bf16", **constexprs: Any
) -> HopperBuild:
    constexprs |= {"E": WIDTH, "BE": channel_block(WIDTH, lane_elements), "FAST": tokens == "*bf16"}
    types = dict.fromkeys(kernel.arg_names, "*fp32")
    types |= dict.fromkeys(constexprs, "constexpr")
    for names, kind in ((TOKENS, tokens), (INDEX, "*i32"), (NUMBERS, "i32")):
        types |= {argument: kind for argument in names if argument in types}
    return HopperBuild(name, kernel, types, constexprs, warps=1, registers=registers)


def _rows(
    name: str, registers: int, *, interleave: int = 8, row_tokens: int = 14, **given: Any
) -> HopperBuild:
    cells, steps = walk_shape(interleave, row_tokens)
    settings = {"IS_RASTER": True, "IS_MAX": False, "CELLS": cells, "STEPS": steps} | given
    settings["IS_ROW"] = cells == interleave
    return _build(f"conv_pool {name}", pool_rows_kernel, registers, lane_elements=LANE_ELEMENTS, **settings)


def _members(name: str, registers: int, **given: Any) -> HopperBuild:
    settings = {"IS_RASTER": True, "IS_MAX": False, "DIRECTIONS": 1} | given
    return _build(
        f"conv_pool {name}", pool_members_kernel, registers, lane_elements=GATHER_LANE_ELEMENTS, **settings
    )


def _back(name: str, registers: int, *, is_full: bool, **given: Any) -> HopperBuild:
    element_size = 4 if given.get("tokens") == "*fp32" else 2
    settings = {"IS_RASTER": True, "IS_MAX": False, "DIRECTIONS": 1, "IS_SHARED": is_full, "IS_FULL": is_full}
    return _build(
        f"conv_pool_backward {name}",
        walk_back_kernel,
        registers,
        lane_elements=LANE_BYTES // element_size,
        **(settings | given),
    )


BUILDS: tuple[HopperBuild, ...] = (
    _rows("dense", 128),
    _rows("dense, turned", 128, IS_RASTER=False),
    _rows("dense, one channel", 80, interleave=1),
    _rows("dense, 16 channels", 128, interleave=16),
    _rows("unpooled", 128, interleave=1568, row_tokens=1),
    _rows("dense, max", 168, IS_MAX=True),
    _rows("dense, fp32", 168, tokens="*fp32"),
    _members("masked", 168),
    _members("masked, turned", 168, IS_RASTER=False),
    _members("masked, published", 96, DIRECTIONS=2),
    _members("masked, max", 216, IS_MAX=True),
    _members("masked, fp32", 232, tokens="*fp32"),
    _back("dense", 160, is_full=True),
    _back("dense, turned", 160, is_full=True, IS_RASTER=False),
    _back("dense, max", 168, is_full=True, IS_MAX=True),
    _back("dense, fp32", 96, is_full=True, tokens="*fp32"),
    _back("masked", 168, is_full=False),
    _back("masked, turned", 168, is_full=False, IS_RASTER=False),
    _back("masked, published", 168, is_full=False, DIRECTIONS=2),
    _back("masked, max", 176, is_full=False, IS_MAX=True),
)
