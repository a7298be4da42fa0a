"""Give tokens their cell's result, add the local path, normalise and gate: the equation."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvim_kernels.layout import Layout

NORM_EPS = 1e-5
"""Added to the variance in the LayerNorm over the inner width."""


def naive_expand_gate(
    xz: Float[Tensor, "b L XZ"],
    y: Float[Tensor, "2 b P E"],
    local: Float[Tensor, "2 b L E"],
    D: Float[Tensor, "2 E"],
    norm: tuple[Float[Tensor, " E"], Float[Tensor, " E"]] | None,
    layout: Layout,
) -> Float[Tensor, "b L XZ//2"]:
    """Average both directions' ``y[cell of token] + D v``, LayerNorm over E (where there is one), times SiLU(z).

    Args:
        xz: Output of in_proj in memory order, z in the second half.
        y: Result of the scan over cells.
        local: Convolved tokens v of both directions, in the order of the sequence.
        D: Weight of the local path.
        norm: Scale and shift of the LayerNorm.
        layout: Order of the sequence and cell of each token.

    Returns:
        Gated tokens in memory order.
    """
    batch = len(xz)
    z = xz.chunk(2, dim=-1)[1]
    sequence, cell = layout.tables(batch, xz.device)
    samples = []
    for i in range(batch):
        directions = [y[way, i, cell[way, i]] + D[way] * local[way, i] for way in (0, 1)]
        in_sequence = (directions[0] + directions[1]) / 2
        samples.append(in_sequence[sequence[i].argsort()])
    mixed = torch.stack(samples)
    if norm is not None:
        mixed = functional.layer_norm(mixed, mixed.shape[-1:], *norm, NORM_EPS)
    return (mixed * functional.silu(z)).to(xz.dtype)
