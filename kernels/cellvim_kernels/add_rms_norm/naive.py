"""Add to the residual stream and divide each token by its root mean square: the equation."""

import torch
from jaxtyping import Float
from torch import Tensor

NORM_EPS = 1e-5
"""Added to the mean square."""


def naive_add_rms_norm(
    tokens: Float[Tensor, "... d"], residual: Float[Tensor, "... d"], weight: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"]]:
    """Add `tokens` to the residual stream, and normalise the sum.

    Args:
        tokens: What the last block computed.
        residual: Stream of all blocks before it, float32 or wider.
        weight: Scale per feature.

    Returns:
        Normalised tokens in the type of `tokens`, and the new residual stream.

    Source:
        Zhang and Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv:1910.07467).
    """
    stream = residual + tokens.to(residual.dtype)
    scale = torch.rsqrt(stream.square().mean(-1, keepdim=True) + NORM_EPS)
    return (stream * scale * weight).to(tokens.dtype), stream
