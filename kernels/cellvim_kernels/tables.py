"""Index tables of a sequence: dense, rotated and masked ones look alike to the fused paths.

A token never moves. What differs between layouts is a few bytes per token, which all samples of a full grid share.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Bins:
    """Cell of each position of a sequence of kept tokens, and what is needed to sum by cell without atomics.

    Args:
        cell: Cell of each position of the sequence.
        count: Tokens in each cell.
        members: Positions of all samples (sample * length + position), sorted by sample and cell.
        first: Where each cell's members start; cells of all samples.
    """

    cell: Int[Tensor, "b length"]
    count: Int[Tensor, "b P"]
    members: Int[Tensor, " b*length"]
    first: Int[Tensor, " b*P"]

    @classmethod
    def of(cls, cell: Int[Tensor, "b length"], cells: int) -> "Bins":
        batch, length = cell.shape
        count = torch.zeros(batch, cells, dtype=torch.long, device=cell.device)
        count.scatter_add_(1, cell, torch.ones_like(cell))
        start = torch.arange(batch, device=cell.device).unsqueeze(1) * length
        members = (cell.argsort(dim=1, stable=True) + start).flatten()
        return cls(cell, count, members, first=count.flatten().cumsum(0) - count.flatten())


@dataclass(frozen=True, eq=False)
class Tables:
    """Where the tokens of a sequence lie, and which cell each belongs to.

    B is 1 if all samples are alike (a full grid), else the batch. G is 1 if both directions share their cells,
    else 2.

    Args:
        sequence: Memory index of each position of the sequence.
        cell: Cell of each position.
        members: Positions sorted by cell, ascending inside a cell.
        first: Where each cell's members start among those of its sample; one more entry ends the last cell.
        share: What the sum over a cell is multiplied by to become its mean; 0 for an empty cell.
        is_raster: The sequence is the memory order: `sequence` counts up.
        row_tokens: Members of each cell of a full grid; 0 if cells differ.
        interleave: Distance of the members of a cell of a full grid; 0 if it differs. Member k of cell p is then
            at position ``(p // interleave * row_tokens + k) * interleave + p % interleave``.
    """

    sequence: Int32[Tensor, "B L"]
    cell: Int32[Tensor, "G B L"]
    members: Int32[Tensor, "G B L"]
    first: Int32[Tensor, "G B ends"]
    share: Float[Tensor, "G B P"]
    is_raster: bool
    row_tokens: int = 0
    interleave: int = 0

    @classmethod
    def of(
        cls,
        sequence: Int[Tensor, "B L"],
        bins: tuple[Bins, ...],
        share: Float[Tensor, "G B P"],
        *,
        is_raster: bool,
        row_tokens: int = 0,
        interleave: int = 0,
    ) -> "Tables":
        """Lay out one or two directions' bins.

        Args:
            sequence: Memory index of each position.
            bins: Cells of both directions, once if they are the same.
            share: See the class.
            is_raster: See the class.
            row_tokens: See the class.
            interleave: See the class.
        """
        batch, length = sequence.shape
        start = torch.arange(batch, device=sequence.device).unsqueeze(1) * length
        members = [each.members.view(batch, length) - start for each in bins]
        ends = [each.count.cumsum(1) for each in bins]
        return cls(
            sequence.to(torch.int32).contiguous(),
            torch.stack([each.cell for each in bins]).to(torch.int32),
            torch.stack(members).to(torch.int32),
            torch.stack([torch.cat([end.new_zeros(batch, 1), end], dim=1) for end in ends]).to(torch.int32),
            share.to(torch.float32).contiguous(),
            is_raster=is_raster,
            row_tokens=row_tokens,
            interleave=interleave,
        )

    @property
    def cells(self) -> int:
        return self.share.shape[-1]
