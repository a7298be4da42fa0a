"""The pooled mixer in three passes over the tokens, forward and backward, on a backend's fused stages.

Only pooled tensors lie between the passes. The convolution is computed again wherever it is read: three times
cheaper than writing it down.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.layout import Pool
from cellvim_kernels.pooled_mixer.weights import MixerWeights
from cellvim_kernels.stages import Stages
from cellvim_kernels.tables import Tables


class Saved(NamedTuple):
    """What the way back needs of the way there, besides its inputs; all of it is pooled.

    Args:
        pooled: Cells u.
        ties: How many tokens share each maximum; empty for means.
        projected: Low-rank step, B and C of each cell.
        step: Step of each cell and channel, before bias and softplus.
        y: Result of the scan.
        starts: State before every so many steps; the number is the backend's own.
    """

    pooled: Float[Tensor, "2 b P E"]
    ties: Tensor
    projected: Float[Tensor, "2 b P rNN"]
    step: Float[Tensor, "2 b P E"]
    y: Float[Tensor, "2 b P E"]
    starts: Tensor


class Gradients(NamedTuple):
    """Of tokens and parameters, in the order of the mixer's arguments."""

    xz: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    A_log: Tensor
    D: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None


def fused_forward(
    stages: Stages,
    xz: Float[Tensor, "b L XZ"],
    weights: MixerWeights,
    tables: Tables,
    pool: Pool,
    *,
    keeps_states: bool,
) -> tuple[Float[Tensor, "b L XZ//2"], Saved]:
    """Compute what `naive_pooled_mixer` defines.

    Args:
        stages: Backend.
        xz: Output of in_proj, contiguous.
        weights: Parameters, float32.
        tables: Index tables of the layout.
        pool: How the tokens of a cell become one.
        keeps_states: Whether there will be a way back.
    """
    pooled, ties = stages.conv_pool(xz, weights.conv_weight, weights.conv_bias, tables, pool)
    projected, step = _project(pooled, weights)
    _, B, C = _split(projected, weights)
    A = -torch.exp(weights.A_log)
    y, starts = stages.selective_scan(pooled, step, weights.dt_bias, A, B, C, keeps_states)
    out = stages.expand_gate(xz, y, weights.conv_weight, weights.conv_bias, weights.D, weights.norm, tables)
    return out, Saved(pooled, ties, projected, step, y, starts)


def fused_backward(
    stages: Stages,
    dout: Float[Tensor, "b L E"],
    xz: Float[Tensor, "b L XZ"],
    weights: MixerWeights,
    tables: Tables,
    pool: Pool,
    saved: Saved,
) -> Gradients:
    """Walk the three passes in reverse; both halves of the tokens' gradient are written into one tensor."""
    conv = weights.conv_weight, weights.conv_bias
    dxz = torch.empty_like(xz)
    dmixed, dscale, dshift = stages.expand_gate_backward(
        dout, xz, saved.y, *conv, weights.D, weights.norm, tables, dxz
    )
    dy = stages.sum_cells(dmixed, tables)
    low_rank, B, C = _split(saved.projected, weights)
    A = -torch.exp(weights.A_log)
    du, dstep, dA, dB, dC = stages.selective_scan_backward(
        dy, saved.pooled, saved.step, weights.dt_bias, A, B, C, saved.starts
    )
    dstep_rows = dstep.flatten(1, 2)
    dlow_rank = torch.bmm(dstep_rows, weights.dt_weight)
    dprojected = torch.cat([dlow_rank, dB.flatten(1, 2), dC.flatten(1, 2)], dim=2)
    pooled_rows = saved.pooled.flatten(1, 2)
    dpooled = torch.baddbmm(du.flatten(1, 2), dprojected, weights.x_proj).view_as(saved.pooled)
    dconv_weight, dconv_bias, dD = stages.conv_pool_backward(
        xz, *conv, weights.D, tables, pool, saved.pooled, saved.ties, dpooled, dmixed, dxz
    )
    return Gradients(
        xz=dxz,
        conv_weight=dconv_weight,
        conv_bias=dconv_bias,
        x_proj=torch.bmm(dprojected.transpose(1, 2), pooled_rows),
        dt_weight=torch.bmm(dstep_rows.transpose(1, 2), low_rank.flatten(1, 2)),
        dt_bias=dstep_rows.sum(1),
        A_log=dA * A,
        D=dD,
        norm_weight=dscale,
        norm_bias=dshift,
    )


def _project(
    pooled: Float[Tensor, "2 b P E"], weights: MixerWeights
) -> tuple[Float[Tensor, "2 b P rNN"], Float[Tensor, "2 b P E"]]:
    _, batch, cells, width = pooled.shape
    projected = torch.bmm(pooled.flatten(1, 2), weights.x_proj.transpose(1, 2))
    low_rank = projected[..., : weights.dt_weight.shape[-1]]
    step = torch.bmm(low_rank, weights.dt_weight.transpose(1, 2))
    return projected.view(2, batch, cells, -1), step.view(2, batch, cells, width)


def _split(projected: Float[Tensor, "2 b P rNN"], weights: MixerWeights) -> list[Tensor]:
    rank, state = weights.dt_weight.shape[-1], weights.A_log.shape[-1]
    return list(projected.split([rank, state, state], dim=-1))
