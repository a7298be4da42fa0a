"""The pooled mixer in plain torch, token-major throughout: no flips, no transposes of the big tensors.

The backward direction is the anticausal convolution and a right-to-left scan in natural order. An odd block's
rotation is folded into the one copy that separates x from z, and into the gating at the end.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.layout import Grid, Kept, Layout, Pool
from cellvim_kernels.pooled_mixer.conv import both_convs_silu
from cellvim_kernels.pooled_mixer.gather import expand_cells, pool_cells, take_tokens
from cellvim_kernels.pooled_mixer.weights import MixerWeights, inner_norm
from cellvim_kernels.selective_scan import ScanInputs, token_major_selective_scan

Scan = Callable[[ScanInputs], Tensor]


def _own_scan(inputs: ScanInputs) -> Float[Tensor, "2 b P E"]:
    y, _ = token_major_selective_scan(inputs)
    return y


def token_major_pooled_mixer(
    xz: Float[Tensor, "b L XZ"],
    weights: MixerWeights,
    layout: Layout,
    pool: Pool = "mean",
    *,
    scan: Scan = _own_scan,
) -> Float[Tensor, "b L XZ//2"]:
    """Compute what `naive_pooled_mixer` defines, with the same arguments and result; on another scan if given."""
    x, z = xz.chunk(2, dim=-1)
    forward, backward = both_convs_silu(_in_sequence(x, layout), weights.conv_weight, weights.conv_bias)
    pooled = torch.stack([pool_cells(forward, layout, pool, 0), pool_cells(backward, layout, pool, 1)])
    y = scan(_scan_inputs(pooled, weights))
    halves = weights.D.to(forward.dtype) * 0.5
    global_part = expand_cells(y, layout)
    mixed = torch.addcmul(torch.addcmul(global_part, forward, halves[0]), backward, halves[1])
    return (_in_memory(inner_norm(mixed, weights), layout) * functional.silu(z)).to(xz.dtype)


def _in_sequence(x: Float[Tensor, "b L E"], layout: Layout) -> Float[Tensor, "b L E"]:
    if isinstance(layout, Kept):
        return x.contiguous() if layout.is_raster else take_tokens(x, layout.sequence, layout.place)
    return _permuted(x, layout, layout.permutation, (layout.rows, layout.cols, layout.channels))


def _in_memory(tokens: Float[Tensor, "b L E"], layout: Layout) -> Float[Tensor, "b L E"]:
    if isinstance(layout, Kept):
        return tokens if layout.is_raster else take_tokens(tokens, layout.place, layout.sequence)
    inverse = [layout.permutation.index(axis) for axis in range(3)]
    return _permuted(tokens, layout, inverse, layout.sequence_shape)


def _permuted(
    tokens: Float[Tensor, "b L E"],
    layout: Grid,
    permutation: tuple[int, int, int] | list[int],
    shape: tuple[int, int, int],
) -> Float[Tensor, "b L E"]:
    if layout.order == "rwc":
        return tokens.contiguous()
    batch, length, width = tokens.shape
    axes = [axis + 1 for axis in permutation]
    return tokens.reshape(batch, *shape, width).permute(0, *axes, 4).reshape(batch, length, width)


def _scan_inputs(pooled: Float[Tensor, "2 b P E"], weights: MixerWeights) -> ScanInputs:
    """Project pooled tokens to the scan's inputs, in float32 at least: the scan is never run in bf16."""
    rank, state = weights.dt_weight.shape[-1], weights.A_log.shape[-1]
    _, batch, cells, width = pooled.shape
    dtype = torch.promote_types(pooled.dtype, torch.float32)
    flat = pooled.to(dtype).view(2, batch * cells, width)
    projected = torch.bmm(flat, weights.x_proj.to(dtype).transpose(1, 2))
    low_rank, B, C = projected.view(2, batch, cells, -1).split([rank, state, state], dim=-1)
    bias = weights.dt_bias.to(dtype).unsqueeze(1)
    step = torch.baddbmm(bias, low_rank.flatten(1, 2), weights.dt_weight.to(dtype).transpose(1, 2))
    delta = functional.softplus(step).view(2, batch, cells, width)
    return ScanInputs(flat.view_as(pooled), delta, -torch.exp(weights.A_log.to(dtype)), B, C)
