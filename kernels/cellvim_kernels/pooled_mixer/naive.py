"""The pooled mixer as its equation: loops over samples, cells and taps. Every fast path is judged by it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.layout import Grid, Layout
from cellvim_kernels.pooled_mixer.weights import MixerWeights, Pool, inner_norm
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
    batch, _, double_width = xz.shape
    x, z = xz.split(double_width // 2, dim=-1)
    sequence, cell = layout.tables(batch, xz.device)
    samples = []
    for i in range(batch):
        in_sequence = _mix_sample(x[i, sequence[i]], cell[:, i], layout, weights, pool)
        samples.append(in_sequence[sequence[i].argsort()])
    mixed = torch.stack(samples)
    return (inner_norm(mixed, weights) * functional.silu(z)).to(xz.dtype)


def _mix_sample(
    x: Float[Tensor, "L E"], cell: Int[Tensor, "2 L"], layout: Layout, weights: MixerWeights, pool: Pool
) -> Float[Tensor, "L E"]:
    local = [_conv_silu(x, weights, direction) for direction in (0, 1)]
    pooled = torch.stack([_pool(local[i], cell[i], layout, pool) for i in (0, 1)])
    inputs = _scan_inputs(pooled[:, None], weights)
    y, _ = naive_selective_scan(inputs)
    directions = [y[i, 0, cell[i]] + weights.D[i] * local[i] for i in (0, 1)]
    return (directions[0] + directions[1]) / 2


def _conv_silu(x: Float[Tensor, "L E"], weights: MixerWeights, direction: int) -> Float[Tensor, "L E"]:
    taps, bias = weights.conv_weight[direction], weights.conv_bias[direction]
    length, width = len(x), taps.shape[-1]
    # The backward direction is the causal convolution of the reversed sequence: it looks ahead.
    towards = -1 if direction == 0 else 1
    rows = []
    for position in range(length):
        total = bias
        for tap in range(width):
            source = position + towards * (width - 1 - tap)
            if 0 <= source < length:
                total = total + taps[:, tap] * x[source]
        rows.append(total)
    return functional.silu(torch.stack(rows))


def _pool(
    tokens: Float[Tensor, "L E"], cell: Int[Tensor, " L"], layout: Layout, pool: Pool
) -> Float[Tensor, "P E"]:
    rows = []
    for number in range(layout.cells):
        members = tokens[cell == number]
        if len(members) == 0:
            rows.append(tokens.new_zeros(tokens.shape[-1]))
        elif pool == "max":
            rows.append(members.amax(0))
        elif isinstance(layout, Grid):
            scale = layout.scale if layout.is_pooled else 1
            rows.append(members.mean(0) * scale)
        else:
            rows.append(members.sum(0) / (layout.divisor or len(members)))
    return torch.stack(rows)


def _scan_inputs(pooled: Float[Tensor, "2 b P E"], weights: MixerWeights) -> ScanInputs:
    rank, state = weights.dt_weight.shape[-1], weights.A_log.shape[-1]
    projected = torch.einsum("ibpe,ixe->ibpx", pooled, weights.x_proj)
    low_rank, B, C = projected.split([rank, state, state], dim=-1)
    step = torch.einsum("ibpr,ier->ibpe", low_rank, weights.dt_weight)
    delta = functional.softplus(step + weights.dt_bias[:, None, None, :])
    return ScanInputs(pooled, delta, -torch.exp(weights.A_log), B, C)
