"""Alignment: two views of the same biology shall look alike, and unlike all others."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, distributed, nn
from torch.nn import functional

from cellvim.model.initialize import kaiming_uniform_, linear

PROJECTED_WIDTH = 128


def alignment_loss(
    projected: Float[Tensor, "views p"], identity: Int[Tensor, " views"], *, temperature: float
) -> Float[Tensor, ""]:
    """InfoNCE over pairs: each view must find its partner among the partners of others, by cosine similarity.

    First views are compared with second views only, in both directions. A pair of the same identity as the
    asking one is no negative: two wells of one compound need not look different. Features that have collapsed
    to one point give the logarithm of the number of pairs, if all identities differ.

    Args:
        projected: Views 2i and 2i + 1 are a pair.
        identity: What a pair shows; the same for both of its views.
        temperature: Similarities are divided by it.

    Source:
        van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding"
        (arXiv:1807.03748), equation 4; both directions as Radford et al. 2021 (arXiv:2103.00020).
    """
    dtype = torch.promote_types(projected.dtype, torch.float32)
    # bf16 has steps of 0.008 near 1, which a low temperature would blow up.
    with torch.autocast(projected.device.type, enabled=False):
        unit = functional.normalize(projected.to(dtype), dim=-1)
        similarity = unit[0::2] @ unit[1::2].T / temperature
    allowed = similarity.masked_fill(_is_same_biology(identity[0::2]), -torch.inf)
    found = torch.arange(len(allowed), device=allowed.device)
    return (functional.cross_entropy(allowed, found) + functional.cross_entropy(allowed.T, found)) / 2


class Projector(nn.Module):
    """Two layers between the features and the alignment, so that features keep what alignment throws away."""

    def __init__(self, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = linear(width, width, has_bias=True)
        self.out = linear(width, PROJECTED_WIDTH, has_bias=False)
        for layer in (self.hidden, self.out):
            kaiming_uniform_(layer.weight, generator)
        nn.init.zeros_(self.hidden.bias)

    def forward(self, features: Float[Tensor, "views d"]) -> Float[Tensor, "views p"]:
        projected: Tensor = self.out(functional.silu(self.hidden(features)))
        return projected


def gather_views(
    projected: Float[Tensor, "views p"], identity: Int[Tensor, " views"]
) -> tuple[Float[Tensor, "gathered p"], Int[Tensor, " gathered"]]:
    """Put the views of all ranks together, in the order of the ranks; the same views where there is one.

    Gradients go back to the rank that a view came from, summed over the ranks that used it. When every rank
    computes the loss of all views and gradients are averaged over ranks, they are those of a single rank.
    Every rank must hold equally many views.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return projected, identity
    gathered: Tensor = _Gather.apply(projected)  # type: ignore[no-untyped-call]
    return gathered, _all_of(identity)


class _Gather(torch.autograd.Function):
    """All-gather whose gradient is the sum over ranks, which gloo and nccl both can."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.size = len(local)
        return _all_of(local)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        first = distributed.get_rank() * ctx.size
        return total[first : first + ctx.size]


def _all_of(local: Shaped[Tensor, "views *more"]) -> Shaped[Tensor, "gathered *more"]:
    parts = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, local.detach().contiguous())
    return torch.cat(parts)


def _is_same_biology(identity: Int[Tensor, " pairs"]) -> Bool[Tensor, "pairs pairs"]:
    """True where two different pairs show the same."""
    same = identity[:, None] == identity[None, :]
    return same & ~torch.eye(len(identity), dtype=torch.bool, device=identity.device)
