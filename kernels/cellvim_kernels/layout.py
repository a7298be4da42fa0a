"""Where tokens lie in memory, in which order the scan meets them, and which cell each is pooled into.

Memory is always raster with the channel innermost: token ``((row * cols) + col) * channels + channel``. Rotation
of odd blocks and the order of channels are only a matter of which index the sequence reads next, so tokens
never move between blocks.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cellvim_kernels.tables import Bins, Tables

Order = Literal["rwc", "wrc", "crw", "cwr"]
"""Axes of the sequence, slowest first: row, width (column), channel. The later of r and w is pooled away."""

Pool = Literal["mean", "max"]
Divisor = Literal["count", "width"]
BackwardRows = Literal["corrected", "published"]

SHAPE_AXES = "rwc"


@dataclass(frozen=True)
class Grid:
    """Every patch of every channel is present.

    Args:
        rows: Patches along y.
        cols: Patches along x.
        channels: Channels of each patch.
        order: ``rwc`` and ``crw`` pool the columns of a row; ``wrc`` and ``cwr`` the rows of a column.
        is_pooled: False makes each token its own cell (unpooled Vim).
        scale: Factor of pooled means, for weights that learned on rows divided by more tokens than were present.
    """

    rows: int
    cols: int
    channels: int
    order: Order = "rwc"
    is_pooled: bool = True
    scale: float = 1.0

    @property
    def length(self) -> int:
        return self.rows * self.cols * self.channels

    @property
    def permutation(self) -> tuple[int, int, int]:
        """Axis of (rows, cols, channels) at each place of the sequence, slowest first."""
        first, second, third = (SHAPE_AXES.index(axis) for axis in self.order)
        return first, second, third

    @property
    def sequence_shape(self) -> tuple[int, int, int]:
        shape = (self.rows, self.cols, self.channels)
        first, second, third = self.permutation
        return shape[first], shape[second], shape[third]

    @property
    def pooled_axis(self) -> int:
        """Which axis of `sequence_shape` shrinks to one: the second spatial one."""
        return 1 if self.order.endswith("c") else 2

    @property
    def cells(self) -> int:
        if not self.is_pooled:
            return self.length
        return self.length // self.sequence_shape[self.pooled_axis]

    @property
    def row_length(self) -> int:
        """Tokens that a cell has when none is missing."""
        return self.sequence_shape[self.pooled_axis] if self.is_pooled else 1

    def tables(
        self, batch: int, device: torch.device
    ) -> tuple[Int[Tensor, "{batch} length"], Int[Tensor, "2 {batch} length"]]:
        """Memory index and, for each direction, cell of each position of the sequence.

        The definition, for references and tests.
        """
        sequence, cell = grid_tables(self)
        return (
            sequence.to(device).expand(batch, -1),
            cell.to(device).expand(2, batch, -1),
        )


@cache
def grid_tables(grid: Grid) -> tuple[Int[Tensor, " length"], Int[Tensor, " length"]]:
    # The tables outlive the call: made under inference mode, they could never take part in training.
    with torch.inference_mode(mode=False):
        return _grid_tables(grid)


def _grid_tables(grid: Grid) -> tuple[Int[Tensor, " length"], Int[Tensor, " length"]]:
    memory = torch.arange(grid.length, device="cpu").view(grid.rows, grid.cols, grid.channels)
    sequence = memory.permute(grid.permutation).reshape(-1)
    if not grid.is_pooled:
        return sequence, torch.arange(grid.length, device="cpu")
    shape = list(grid.sequence_shape)
    pooled_size, shape[grid.pooled_axis] = shape[grid.pooled_axis], 1
    cell = torch.arange(grid.cells, device="cpu").view(shape)
    return sequence, cell.repeat_interleave(pooled_size, dim=grid.pooled_axis).reshape(-1)


@dataclass(frozen=True, eq=False)
class Kept:
    """Some tokens of a grid, a different choice in each sample but equally many.

    Built once per batch and used by every block of the same order.

    Args:
        sequence: Memory index, among the kept tokens, of each position of the sequence.
        place: Its inverse: position in the sequence of each kept token.
        cells: Number of cells P, empty ones included.
        bins: Cells of the forward and of the backward direction: the same, but in the published masked models.
        divisor: What the sum over a cell is divided by; the number of its tokens if None.
        is_raster: The sequence is the memory order.
        index: The same for the fused paths.
    """

    sequence: Int[Tensor, "b length"]
    place: Int[Tensor, "b length"]
    cells: int
    bins: tuple[Bins, Bins]
    divisor: int | None
    is_raster: bool
    index: Tables

    @classmethod
    def from_ids(
        cls,
        ids: Int[Tensor, "b length"],
        grid: Grid,
        *,
        divisor: Divisor = "count",
        backward_rows: BackwardRows = "corrected",
    ) -> "Kept":
        """Keep the tokens `ids` of `grid`.

        Args:
            ids: Memory indices of the kept tokens in `grid`, ascending in each sample.
            grid: The whole grid, in the order that the sequence shall have.
            divisor: Divide the sum over a cell by the tokens that it has, or by those it would have in `grid`.
            backward_rows: `published` gives position i from the end, in the backward direction, the cell number of
                position i from the start, which is right only if nothing is hidden.
        """
        sequence_of_grid, cell_of_position = (table.to(ids.device) for table in grid_tables(grid))
        position_of_token = torch.empty_like(sequence_of_grid)
        position_of_token[sequence_of_grid] = torch.arange(grid.length, device=ids.device)
        position = position_of_token[ids]
        sequence = position.argsort(dim=1)
        if grid.is_pooled:
            cells = grid.cells
            cell = cell_of_position[position.gather(1, sequence)]
        else:
            cells = ids.shape[1]
            cell = torch.arange(cells, device=ids.device).expand_as(ids)
        forward = Bins.of(cell, cells)
        is_corrected = backward_rows == "corrected"
        backward = forward if is_corrected else Bins.of(cells - 1 - cell.flip(1), cells)
        constant = None if divisor == "count" else grid.row_length
        directions = (forward,) if is_corrected else (forward, backward)
        share = torch.stack([_share(each, constant) for each in directions])
        is_raster = grid.order == "rwc"
        return cls(
            sequence,
            place=sequence.argsort(dim=1),
            cells=cells,
            bins=(forward, backward),
            divisor=constant,
            is_raster=is_raster,
            index=Tables.of(sequence, directions, share, is_raster=is_raster),
        )

    def tables(
        self,
        batch: int,  # noqa: ARG002  (same signature as Grid's)
        device: torch.device,  # noqa: ARG002
    ) -> tuple[Int[Tensor, "{batch} length"], Int[Tensor, "2 {batch} length"]]:
        return self.sequence, torch.stack([bins.cell for bins in self.bins])


def _share(bins: Bins, divisor: int | None) -> Float[Tensor, "b P"]:
    occupied = bins.count > 0
    return occupied / bins.count.clamp(min=1) if divisor is None else occupied / divisor


Layout = Grid | Kept


def index_tables(layout: Layout, device: torch.device) -> Tables:
    """Look up what the fused paths read; tables of a grid are made once per device."""
    return _grid_index(layout, device) if isinstance(layout, Grid) else layout.index


@cache
def _grid_index(grid: Grid, device: torch.device) -> Tables:
    # As above: they outlive the call.
    with torch.inference_mode(mode=False):
        sequence, cell = (table.unsqueeze(0).to(device) for table in grid_tables(grid))
        factor = (grid.scale if grid.is_pooled else 1) / grid.row_length
        share = torch.full((1, 1, grid.cells), factor, dtype=torch.float32, device=device)
        return Tables.of(
            sequence,
            (Bins.of(cell, grid.cells),),
            share,
            is_raster=grid.order == "rwc",
            row_tokens=grid.row_length,
            interleave=grid.sequence_shape[2] if grid.is_pooled and grid.pooled_axis == 1 else 1,
        )
