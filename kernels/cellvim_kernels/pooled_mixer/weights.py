"""Parameters of the mixer between in_proj and out_proj."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.expand_gate import NORM_EPS


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

    @property
    def norm(self) -> tuple[Float[Tensor, " E"], Float[Tensor, " E"]] | None:
        """Scale and shift of the LayerNorm over E; None for a mixer without it.

        Raises:
            AssertionError: There is one without the other.
        """
        if self.norm_weight is None or self.norm_bias is None:
            if self.norm_weight is not self.norm_bias:
                msg = "the inner norm has a scale and a shift, or neither"
                raise AssertionError(msg)
            return None
        return self.norm_weight, self.norm_bias


def inner_norm(mixed: Float[Tensor, "*tokens E"], weights: MixerWeights) -> Float[Tensor, "*tokens E"]:
    """LayerNorm over E, where the mixer has one."""
    if weights.norm is None:
        return mixed
    scale, shift = (parameter.to(mixed.dtype) for parameter in weights.norm)
    return functional.layer_norm(mixed, mixed.shape[-1:], scale, shift, NORM_EPS)
