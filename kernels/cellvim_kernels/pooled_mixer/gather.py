"""From tokens to cells and back, dense by reshaping and masked by gathering. Deterministic, without atomics."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cellvim_kernels.layout import Grid, Kept, Layout
from cellvim_kernels.pooled_mixer.weights import Pool


def pool_cells(tokens: Float[Tensor, "b L E"], layout: Layout, pool: Pool) -> Float[Tensor, "b P E"]:
    """Pool tokens, in the order of the sequence, to cells. A cell without a token is zero."""
    if isinstance(layout, Grid):
        if not layout.is_pooled:
            return tokens
        axis = layout.pooled_axis + 1
        by_axis = tokens.view(len(tokens), *layout.sequence_shape, -1)
        return (by_axis.mean(axis) if pool == "mean" else by_axis.amax(axis)).flatten(1, 2)
    if pool == "mean":
        total: Tensor = _SumPerCell.apply(tokens, layout)  # type: ignore[no-untyped-call]
        return total / layout.count.clamp(min=1).unsqueeze(-1).to(tokens.dtype)
    index = layout.cell.unsqueeze(-1).expand_as(tokens)
    empty = tokens.new_zeros(len(tokens), layout.cells, tokens.shape[-1])
    return empty.scatter_reduce(1, index, tokens, "amax", include_self=False)


def expand_cells(cells: Float[Tensor, "b P E"], layout: Layout) -> Float[Tensor, "b L E"]:
    """Give every token, in the order of the sequence, the value of its cell."""
    if isinstance(layout, Kept):
        of_token: Tensor = _ValueOfCell.apply(cells, layout)  # type: ignore[no-untyped-call]
        return of_token
    if not layout.is_pooled:
        return cells
    axis = layout.pooled_axis + 1
    shape = list(layout.sequence_shape)
    pooled_shape = [*shape[: axis - 1], 1, *shape[axis:]]
    expanded = cells.view(len(cells), *pooled_shape, -1).expand(-1, *shape, -1)
    return expanded.reshape(len(cells), layout.length, -1)


def take_tokens(
    tokens: Float[Tensor, "b L E"], index: Int[Tensor, "b L"], inverse: Int[Tensor, "b L"]
) -> Float[Tensor, "b L E"]:
    """Reorder the tokens of each sample; `inverse` undoes `index`, so the gradient is a gather too."""
    reordered: Tensor = _Reordered.apply(tokens, index, inverse)  # type: ignore[no-untyped-call]
    return reordered


class _SumPerCell(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, layout: Kept) -> Tensor:
        ctx.layout = layout
        return _sum_per_cell(tokens, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _value_of_cell(gradients[0], ctx.layout), None


class _ValueOfCell(Function):
    @staticmethod
    def forward(ctx: Any, cells: Tensor, layout: Kept) -> Tensor:
        ctx.layout = layout
        return _value_of_cell(cells, layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _sum_per_cell(gradients[0], ctx.layout), None


class _Reordered(Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        return _rows(tokens, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _rows(gradients[0], ctx.inverse), None, None


def _value_of_cell(cells: Float[Tensor, "b P E"], layout: Kept) -> Float[Tensor, "b L E"]:
    return _rows(cells, layout.cell)


def _sum_per_cell(tokens: Float[Tensor, "b L E"], layout: Kept) -> Float[Tensor, "b P E"]:
    batch, length, width = tokens.shape
    rows = tokens.reshape(batch * length, width)
    # One bag per cell: each is summed by one thread, in the order of the sequence.
    sums = functional.embedding_bag(layout.members, rows, layout.first, mode="sum")
    return sums.view(batch, layout.cells, width)


def _rows(tokens: Float[Tensor, "b S E"], index: Int[Tensor, "b L"]) -> Float[Tensor, "b L E"]:
    batch, size, width = tokens.shape
    flat = tokens.reshape(batch * size, width).index_select(0, _flat(index, size))
    return flat.view(batch, index.shape[1], width)


def _flat(index: Int[Tensor, "b L"], size: int) -> Int[Tensor, " b*L"]:
    start = torch.arange(len(index), device=index.device).unsqueeze(1) * size
    return (index + start).flatten()
