"""From tokens to cells and back, dense by reshaping and masked by gathering. Deterministic.

Sums have a fixed order and use no atomics. The maximum over kept tokens is a scatter, which a GPU does with atomics:
a maximum, and the count of its ties, by which the gradient is shared out, are the same in any order.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cellvim_kernels.layout import Grid, Layout, Pool
from cellvim_kernels.tables import Bins


def pool_cells(
    tokens: Float[Tensor, "b L E"], layout: Layout, pool: Pool, direction: int
) -> Float[Tensor, "b P E"]:
    """Pool tokens, in the order of the sequence, to the cells of a direction. A cell without a token is zero."""
    if isinstance(layout, Grid):
        return _pool_grid(tokens, layout, pool)
    bins = layout.bins[direction]
    if pool == "mean":
        total: Tensor = _SumPerCell.apply(tokens, bins)  # type: ignore[no-untyped-call]
        if layout.divisor is not None:
            return total / layout.divisor
        return total / bins.count.clamp(min=1).unsqueeze(-1).to(tokens.dtype)
    index = bins.cell.unsqueeze(-1).expand_as(tokens)
    # Not zeros: where the maximum is 0, the gradient would be shared with what the cells started from.
    start = tokens.new_full((len(tokens), layout.cells, tokens.shape[-1]), -torch.inf)
    maxima = start.scatter_reduce(1, index, tokens, "amax", include_self=False)
    return maxima.masked_fill((bins.count == 0).unsqueeze(-1), 0)


def expand_cells(cells: Float[Tensor, "2 b P E"], layout: Layout) -> Float[Tensor, "b L E"]:
    """Give every token, in the order of the sequence, the mean of both directions' values of its cell."""
    if isinstance(layout, Grid):
        return _expand_grid((cells[0] + cells[1]) * 0.5, layout)
    forward, backward = layout.bins
    if backward is forward:
        return _expand_kept((cells[0] + cells[1]) * 0.5, forward)
    return (_expand_kept(cells[0], forward) + _expand_kept(cells[1], backward)) * 0.5


def _pool_grid(tokens: Float[Tensor, "b L E"], grid: Grid, pool: Pool) -> Float[Tensor, "b P E"]:
    if not grid.is_pooled:
        return tokens
    axis = grid.pooled_axis + 1
    by_axis = tokens.view(len(tokens), *grid.sequence_shape, -1)
    if pool == "max":
        return by_axis.amax(axis).flatten(1, 2)
    mean = by_axis.mean(axis).flatten(1, 2)
    return mean if grid.scale == 1 else mean * grid.scale


def _expand_grid(cells: Float[Tensor, "b P E"], grid: Grid) -> Float[Tensor, "b L E"]:
    if not grid.is_pooled:
        return cells
    axis = grid.pooled_axis + 1
    shape = list(grid.sequence_shape)
    pooled_shape = [*shape[: axis - 1], 1, *shape[axis:]]
    expanded = cells.view(len(cells), *pooled_shape, -1).expand(-1, *shape, -1)
    return expanded.reshape(len(cells), grid.length, -1)


def _expand_kept(cells: Float[Tensor, "b P E"], bins: Bins) -> Float[Tensor, "b L E"]:
    of_token: Tensor = _ValueOfCell.apply(cells, bins)  # type: ignore[no-untyped-call]
    return of_token


def take_tokens(
    tokens: Float[Tensor, "b L E"], index: Int[Tensor, "b L"], inverse: Int[Tensor, "b L"]
) -> Float[Tensor, "b L E"]:
    """Reorder the tokens of each sample; `inverse` undoes `index`, so the gradient is a gather too."""
    reordered: Tensor = _Reordered.apply(tokens, index, inverse)  # type: ignore[no-untyped-call]
    return reordered


class _SumPerCell(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, bins: Bins) -> Tensor:
        ctx.bins = bins
        return _sum_per_cell(tokens, bins)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _value_of_cell(gradients[0], ctx.bins), None


class _ValueOfCell(Function):
    @staticmethod
    def forward(ctx: Any, cells: Tensor, bins: Bins) -> Tensor:
        ctx.bins = bins
        return _value_of_cell(cells, bins)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum_per_cell(gradients[0], ctx.bins), None


class _Reordered(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return _rows(tokens, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _rows(gradients[0], ctx.inverse), None, None


def _value_of_cell(cells: Float[Tensor, "b P E"], bins: Bins) -> Float[Tensor, "b L E"]:
    return _rows(cells, bins.cell)


def _sum_per_cell(tokens: Float[Tensor, "b L E"], bins: Bins) -> Float[Tensor, "b P E"]:
    batch, length, width = tokens.shape
    rows = tokens.reshape(batch * length, width)
    # One bag per cell: each is summed by one thread, in the order of the sequence.
    sums = functional.embedding_bag(bins.members, rows, bins.first, mode="sum")
    return sums.view(batch, bins.count.shape[1], width)


def _rows(tokens: Float[Tensor, "b S E"], index: Int[Tensor, "b L"]) -> Float[Tensor, "b L E"]:
    batch, size, width = tokens.shape
    flat = tokens.reshape(batch * size, width).index_select(0, _flat(index, size))
    return flat.view(batch, index.shape[1], width)


def _flat(index: Int[Tensor, "b L"], size: int) -> Int[Tensor, " b*L"]:
    start = torch.arange(len(index), device=index.device).unsqueeze(1) * size
    return (index + start).flatten()
