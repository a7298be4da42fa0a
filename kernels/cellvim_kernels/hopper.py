"""What each Triton kernel may cost on a Hopper GPU: checked by compiling, on any machine."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HopperBuild:
    """One kernel as it is launched, and its bound.

    Args:
        name: Kernel and case, as the table of kernels/README.md shows it.
        kernel: The function under `triton.jit`.
        signature: Triton type of each argument: ``*bf16``, ``*fp32``, ``*i32``, ``i32``, ``fp32`` or ``constexpr``.
        constexprs: Values of the compile-time arguments.
        warps: Warps per program.
        registers: Most registers per thread that it may take.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    warps: int
    registers: int
