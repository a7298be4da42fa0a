"""Activations that several Triton kernels share."""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def sigmoid(x: tl.tensor, FAST: tl.constexpr) -> tl.tensor:
    """Logistic function of a float32 tile.

    Args:
        x: Any shape.
        FAST: Use the hardware's tanh: one special function instead of two, with an absolute error of about 3e-4,
            which is below the rounding of bf16 tokens. Only on a GPU: the interpreter has no inline assembly.
    """
    if FAST:
        return tl.fma(hardware_tanh(x * 0.5), 0.5, 0.5)
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
@no_type_check
def silu(x: tl.tensor, FAST: tl.constexpr) -> tl.tensor:
    """``x * sigmoid(x)`` of a float32 tile.

    Args:
        x: Any shape.
        FAST: See `sigmoid`.
    """
    if FAST:
        half = x * 0.5
        return tl.fma(hardware_tanh(half), half, half)
    return x * sigmoid(x, FAST)


@triton.jit
@no_type_check
def hardware_tanh(x: tl.tensor) -> tl.tensor:
    """Hyperbolic tangent by the GPU's special function unit, of a float32 tile; only on a GPU."""
    return tl.inline_asm_elementwise(
        "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
    )
