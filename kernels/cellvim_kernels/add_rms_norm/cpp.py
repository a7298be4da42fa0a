"""Residual addition and RMSNorm on the CPU, in C++; what they compute is told in `naive.py`."""

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.cpp.call import call

CHUNK = 64
"""Rows over which one partial sum of the weight's gradient runs; as in cpu.cpp."""


def add_rms_norm(
    tokens: Float[Tensor, "... d"], residual: Float[Tensor, "... d"], weight: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"], Float[Tensor, "..."]]:
    """Add `tokens` to the residual stream, and normalise the sum.

    Returns:
        Normalised tokens, the new residual stream, and the factor that each was normalised by.
    """
    normed, stream = torch.empty_like(tokens), torch.empty_like(tokens)
    scale = tokens.new_empty(tokens.shape[:-1])
    sizes = scale.numel(), len(weight), torch.get_num_threads()
    call("cellvim_add_rms_norm", (*sizes, tokens, residual, weight, normed, stream, scale))
    return normed, stream, scale


def add_rms_norm_backward(
    dnormed: Float[Tensor, "... d"],
    dstream: Float[Tensor, "... d"],
    stream: Float[Tensor, "... d"],
    scale: Float[Tensor, "..."],
    weight: Float[Tensor, " d"],
) -> tuple[Float[Tensor, "... d"], Float[Tensor, " d"]]:
    """Gradient of both summands, which is the same, and of the weight.

    Args:
        dnormed: Gradient of the normalised tokens.
        dstream: Gradient of the new residual stream.
        stream: Result of the forward pass.
        scale: Result of the forward pass.
        weight: Scale per feature.
    """
    rows, width = scale.numel(), len(weight)
    dtotal = torch.empty_like(stream)
    partial = stream.new_empty(-(-rows // CHUNK), width)
    given = dnormed, dstream, stream, scale, weight
    call("cellvim_add_rms_norm_backward", (rows, width, torch.get_num_threads(), *given, dtotal, partial))
    return dtotal, partial.sum(0)
