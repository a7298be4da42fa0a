"""What the scan's kernels may cost on Hopper: the small model's width and state size."""

from typing import Any

from cellvim_kernels.hopper import HopperBuild
from cellvim_kernels.selective_scan.triton import BLOCK, WARPS, scan_kernel
from cellvim_kernels.selective_scan.triton_backward import CHUNK, scan_backward_kernel

TENSORS = {"u", "step", "dt_bias", "A", "B", "C", "y", "starts", "dy", "du", "dstep", "dA", "dB", "dC"}
SIZES: dict[str, Any] = {"E": 768, "N": 16, "CHUNK": CHUNK}


def _signature(kernel: Any, constexprs: dict[str, Any]) -> dict[str, str]:
    return {
        name: "constexpr" if name in constexprs else "*fp32" if name in TENSORS else "i32"
        for name in kernel.arg_names
    }


def _forward(name: str, *, keeps: bool) -> HopperBuild:
    constexprs = {**SIZES, "BLOCK": BLOCK, "KEEPS": keeps}
    signature = _signature(scan_kernel, constexprs)
    return HopperBuild(name, scan_kernel, signature, constexprs, warps=WARPS, registers=168)


BUILDS: tuple[HopperBuild, ...] = (
    _forward("scan", keeps=False),
    _forward("scan, states kept", keeps=True),
    HopperBuild(
        "scan, backward",
        scan_backward_kernel,
        _signature(scan_backward_kernel, SIZES),
        SIZES,
        warps=1,
        registers=255,
    ),
)
