"""In which order the blocks of a model meet tokens, and which of them share a cell of the scan."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim_kernels import Grid, Kept, Layout, Order, grid_tables, take_tokens

ScanOrder = Literal["channel-first", "spatial-first", "alternating"]

ORDERS: dict[ScanOrder, tuple[Order, ...]] = {
    "channel-first": ("rwc", "wrc"),
    "spatial-first": ("crw", "cwr"),
    "alternating": ("rwc", "wrc", "crw", "cwr"),
}
"""Order of the sequence in successive blocks, over and over: even ones pool the columns of a row, odd ones the
reverse. Alternating goes by pairs, so a stack of two blocks, as the default decoder, is channel-first."""

TURNED: dict[Order, Order] = {"rwc": "wrc", "wrc": "rwc", "crw": "cwr", "cwr": "crw"}


@dataclass(frozen=True, eq=False)
class Plan:
    """How a batch of tokens runs through the blocks.

    Args:
        layouts: Layouts of successive blocks, to be repeated along the stack.
        order: Index into memory of each token as the blocks get it; None for memory order itself.
        place: The inverse of `order`.
        groups: Parts of each sample that are run as samples of their own.
    """

    layouts: tuple[Layout, ...]
    order: Int[Tensor, "b L"] | None = None
    place: Int[Tensor, "b L"] | None = None
    groups: int = 1

    def arrange(self, tokens: Float[Tensor, "b L d"]) -> Float[Tensor, "groups_b S d"]:
        if self.order is not None and self.place is not None:
            tokens = take_tokens(tokens, self.order, self.place)
        return tokens.reshape(len(tokens) * self.groups, -1, tokens.shape[-1])

    def restore(self, tokens: Float[Tensor, "groups_b S d"]) -> Float[Tensor, "b L d"]:
        whole = tokens.reshape(len(tokens) // self.groups, -1, tokens.shape[-1])
        if self.order is None or self.place is None:
            return whole
        return take_tokens(whole, self.place, self.order)


def block_orders(model: ModelSettings, *, is_pooled: bool) -> tuple[Order, ...]:
    """Order of the sequence in successive blocks; without pooling nothing is rotated."""
    orders = ORDERS[model.scan_order]
    if model.scan_path == "colwise":
        orders = tuple(TURNED[order] for order in orders)
    return orders if is_pooled and model.is_rotated else orders[::2]


def grid_layouts(
    model: ModelSettings, rows: int, cols: int, channels: int, *, is_pooled: bool, scale: float = 1.0
) -> tuple[Layout, ...]:
    """Layouts of successive blocks over a full grid."""
    orders = block_orders(model, is_pooled=is_pooled)
    return tuple(Grid(rows, cols, channels, order, is_pooled, scale) for order in orders)


def grid_plan(model: ModelSettings, rows: int, cols: int, channels: int, *, batch: int) -> Plan:
    """Plan the encoder's way over a full grid."""
    is_pooled = model.backbone != "channel_vim"
    if model.backbone == "bag_of_channels":
        layouts = grid_layouts(model, rows, cols, 1, is_pooled=is_pooled, scale=model.dense_pool_scale)
        by_channel = torch.arange(rows * cols * channels).view(rows * cols, channels).T.reshape(-1)
        return _gathered(layouts, by_channel.expand(batch, -1), groups=channels)
    if model.has_class_token:
        return _with_class_token(model, batch, Grid(rows, cols, channels))
    return Plan(grid_layouts(model, rows, cols, channels, is_pooled=is_pooled, scale=model.dense_pool_scale))


def kept_plan(model: ModelSettings, hidden: Bool[Tensor, "b rows cols c"]) -> Plan:
    """Plan the encoder's way over the tokens that are not hidden.

    A channel that is hidden whole has no cells: the scan is that of the image without it. A row whose patches
    are all hidden keeps its cell, which is zero.
    """
    _, rows, cols, _ = hidden.shape
    is_present = ~hidden.all(2).all(1)
    present = int(is_present[0].sum())
    if not bool((is_present.sum(1) == present).all()):
        msg = "samples of a batch must show equally many channels"
        raise AssertionError(msg)
    rank = is_present.cumsum(1) - 1
    ids = kept_ids(hidden)
    place, channel = ids // hidden.shape[-1], ids % hidden.shape[-1]
    if model.backbone != "bag_of_channels":
        present_ids = place * present + rank.gather(1, channel)
        return Plan(_kept_layouts(model, present_ids, rows, cols, present))
    order = channel.argsort(dim=1, stable=True)
    alone = place.gather(1, order).reshape(len(ids) * present, -1)
    return _gathered(_kept_layouts(model, alone, rows, cols, 1), order, groups=present)


def kept_ids(hidden: Bool[Tensor, "b rows cols c"]) -> Int[Tensor, "b kept"]:
    """Memory indices of the tokens that are not hidden, ascending, equally many in each sample."""
    visible = ~hidden.flatten(1)
    counts = visible.sum(1)
    if not bool((counts == counts[0]).all()):
        msg = "samples of a batch must keep equally many tokens"
        raise AssertionError(msg)
    return visible.nonzero()[:, 1].view(len(hidden), -1)


def _kept_layouts(
    model: ModelSettings, ids: Int[Tensor, "b kept"], rows: int, cols: int, channels: int
) -> tuple[Layout, ...]:
    is_pooled = model.backbone != "channel_vim"
    return tuple(
        Kept.from_ids(
            ids,
            Grid(rows, cols, channels, order, is_pooled),
            divisor=model.pool_divisor,
            backward_rows=model.backward_rows,
        )
        for order in block_orders(model, is_pooled=is_pooled)
    )


def _with_class_token(model: ModelSettings, batch: int, grid: Grid) -> Plan:
    """Read tokens in the order of the sequence, so that the token in its middle is just one more of them."""
    (order,) = block_orders(model, is_pooled=False)
    sequence, _ = grid_tables(Grid(grid.rows, grid.cols, grid.channels, order))
    longer = (Grid(1, grid.length + 1, 1, is_pooled=False),)
    return Plan(longer) if order == "rwc" else _gathered(longer, sequence.expand(batch, -1), groups=1)


def _gathered(layouts: tuple[Layout, ...], order: Int[Tensor, "b L"], *, groups: int) -> Plan:
    return Plan(layouts, order, order.argsort(dim=1), groups)
