"""What the norm's kernels may cost on Hopper: the small model's width."""

from typing import Any

from cellvim_kernels.add_rms_norm.triton import (
    PROGRAM_ROWS,
    add_rms_norm_backward_kernel,
    add_rms_norm_kernel,
    tile_of,
)
from cellvim_kernels.hopper import HopperBuild

WIDTH = 384
BLOCK, ROWS, WARPS = tile_of(WIDTH)


def _build(name: str, kernel: Any, dtype: str, registers: int) -> HopperBuild:
    constexprs = {"D": WIDTH, "ROWS": ROWS, "BLOCK": BLOCK, "STEPS": PROGRAM_ROWS // ROWS}
    types = dict.fromkeys(("tokens", "normed", "dnormed"), dtype)
    types |= {"rows": "i32", "eps": "fp32"} | dict.fromkeys(constexprs, "constexpr")
    signature = {argument: types.get(argument, "*fp32") for argument in kernel.arg_names}
    used = {key: value for key, value in constexprs.items() if key in signature}
    return HopperBuild(name, kernel, signature, used, warps=WARPS, registers=registers)


BUILDS: tuple[HopperBuild, ...] = (
    _build("add + RMSNorm, bf16", add_rms_norm_kernel, "*bf16", registers=96),
    _build("add + RMSNorm, fp32", add_rms_norm_kernel, "*fp32", registers=72),
    _build("add + RMSNorm, backward, bf16", add_rms_norm_backward_kernel, "*bf16", registers=144),
    _build("add + RMSNorm, backward, fp32", add_rms_norm_backward_kernel, "*fp32", registers=128),
)
