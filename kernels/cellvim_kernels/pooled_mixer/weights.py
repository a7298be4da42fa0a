"""Parameters of the mixer between in_proj and out_proj."""

from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Pool = Literal["mean", "max"]

NORM_EPS = 1e-5
"""Added to the variance in the LayerNorm over the inner width."""


class MixerWeights(NamedTuple):
    """Both directions, index 0 forward and index 1 backward; inner width E, state size N, step rank r.

    Args:
        conv_weight: Depthwise taps; the last one meets the token itself, in both directions.
        conv_bias: Bias of the convolution.
        x_proj: From a pooled token to the low-rank step (r rows), B (N rows) and C (N rows).
        dt_weight: From the low-rank step to a step per inner channel.
        dt_bias: Added inside the softplus.
        A_log: Logarithm of the decay rates, ``A = -exp(A_log)``.
        D: Weight of the unpooled convolution output, through which local detail passes.
        norm_weight: Scale of the LayerNorm over E; None for a mixer without it.
        norm_bias: Shift of the LayerNorm over E; None for a mixer without it.
    """

    conv_weight: Float[Tensor, "2 E K"]
    conv_bias: Float[Tensor, "2 E"]
    x_proj: Float[Tensor, "2 r+N+N E"]
    dt_weight: Float[Tensor, "2 E r"]
    dt_bias: Float[Tensor, "2 E"]
    A_log: Float[Tensor, "2 E N"]
    D: Float[Tensor, "2 E"]
    norm_weight: Float[Tensor, " E"] | None
    norm_bias: Float[Tensor, " E"] | None


def inner_norm(mixed: Float[Tensor, "*tokens E"], weights: MixerWeights) -> Float[Tensor, "*tokens E"]:
    """LayerNorm over E, where the mixer has one."""
    if weights.norm_weight is None or weights.norm_bias is None:
        return mixed
    scale, shift = weights.norm_weight.to(mixed.dtype), weights.norm_bias.to(mixed.dtype)
    return functional.layer_norm(mixed, mixed.shape[-1:], scale, shift, NORM_EPS)
