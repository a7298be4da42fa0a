"""The pooled mixer as its equation, from the equations of its parts. Every fast path is judged by it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.conv_pool import naive_conv_pool
from cellvim_kernels.expand_gate import naive_expand_gate
from cellvim_kernels.layout import Layout, Pool
from cellvim_kernels.pooled_mixer.weights import MixerWeights
from cellvim_kernels.selective_scan import ScanInputs, naive_selective_scan


def naive_pooled_mixer(
    xz: Float[Tensor, "b L XZ"], weights: MixerWeights, layout: Layout, pool: Pool = "mean"
) -> Float[Tensor, "b L XZ//2"]:
    """Mix tokens along the sequence of `layout`, both ways, and gate them.

    Per direction: depthwise convolution over the sequence and SiLU; pool to cells (an empty cell is zero); scan
    over the cells; give every token its cell's result; add D times the unpooled convolution. Then average the
    directions, LayerNorm over E (where there is one), multiply by SiLU(z).

    Args:
        xz: Output of in_proj in memory order, x in the first half and z in the second.
        weights: Parameters of both directions.
        layout: Order of the sequence and cell of each token.
        pool: How the tokens of a cell become one.

    Returns:
        Gated tokens in memory order.

    Source:
        Kapse et al. 2025, "Fast Vision Mamba" (arXiv:2502.00594).
    """
    pooled, local = naive_conv_pool(xz, weights.conv_weight, weights.conv_bias, layout, pool)
    y, _ = naive_selective_scan(_scan_inputs(pooled, weights))
    return naive_expand_gate(xz, y, local, weights.D, weights.norm, layout)


def _scan_inputs(pooled: Float[Tensor, "2 b P E"], weights: MixerWeights) -> ScanInputs:
    rank, state = weights.dt_weight.shape[-1], weights.A_log.shape[-1]
    projected = torch.einsum("ibpe,ixe->ibpx", pooled, weights.x_proj)
    low_rank, B, C = projected.split([rank, state, state], dim=-1)
    step = torch.einsum("ibpr,ier->ibpe", low_rank, weights.dt_weight)
    delta = functional.softplus(step + weights.dt_bias[:, None, None, :])
    return ScanInputs(pooled, delta, -torch.exp(weights.A_log), B, C)
