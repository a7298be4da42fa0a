"""Convolve along the sequence, both ways, and pool to cells: the equation, with loops over samples and taps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.layout import Grid, Layout, Pool


def naive_conv_pool(
    xz: Float[Tensor, "b L XZ"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    layout: Layout,
    pool: Pool = "mean",
) -> tuple[Float[Tensor, "2 b P E"], Float[Tensor, "2 b L E"]]:
    """Convolve x along the sequence, apply SiLU, and pool the tokens of each cell; an empty cell is zero.

    Args:
        xz: Output of in_proj in memory order, x in the first half.
        conv_weight: Depthwise taps of both directions; the last one meets the token itself.
        conv_bias: Bias of the convolution.
        layout: Order of the sequence and cell of each token.
        pool: How the tokens of a cell become one.

    Returns:
        Pooled cells, and the convolved tokens in the order of the sequence.
    """
    batch, _, double_width = xz.shape
    x = xz[..., : double_width // 2]
    sequence, cell = layout.tables(batch, xz.device)
    local = torch.stack(
        [
            torch.stack(
                [_conv_silu(x[i, sequence[i]], conv_weight[way], conv_bias[way], way) for i in range(batch)]
            )
            for way in (0, 1)
        ]
    )
    pooled = torch.stack(
        [
            torch.stack([_pool(local[way, i], cell[way, i], layout, pool) for i in range(batch)])
            for way in (0, 1)
        ]
    )
    return pooled, local


def _conv_silu(
    x: Float[Tensor, "L E"], taps: Float[Tensor, "E K"], bias: Float[Tensor, " E"], direction: int
) -> Float[Tensor, "L E"]:
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
