"""The encoder: any image size and any named set of channels in, one token per patch and channel out."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cellvim.config import ModelSettings
from cellvim.errors import InputError, UsageError
from cellvim.model.channel_embed import (
    Arrangement,
    PatchProjection,
    TokenAddress,
    arrange_channels,
    reorder_channels,
    to_patches,
)
from cellvim.model.device import choose_backend
from cellvim.model.mixer import Block, RMSNorm
from cellvim_kernels import Grid, Kept, Layout, Order

ScanOrder = Literal["channel-first", "spatial-first", "alternating"]

ORDERS: dict[ScanOrder, tuple[Order, ...]] = {
    "channel-first": ("rwc", "wrc"),
    "spatial-first": ("crw", "cwr"),
    "alternating": ("rwc", "wrc", "crw", "cwr"),
}
"""Order of the sequence in successive blocks, over and over: even ones pool the columns of a row, odd ones the
reverse. Alternating goes by pairs, so a stack of two blocks, as the default decoder, is channel-first."""


class ChannelEncoder(nn.Module):
    """Channel-aware FastVim (FastChannelVim), the part of the model that `embed` uses.

    Args:
        model: Size and scan of the model.
        channels: Stains that get a row of their own in the stain table; all others share the `unknown` row.
        generator: Source of the initial weights.

    Raises:
        UsageError: CELLVIM_KERNEL names an unknown backend.

    Source:
        Kapse et al. 2025, "Fast Vision Mamba" (arXiv:2502.00594).
    """

    def __init__(self, model: ModelSettings, channels: Sequence[str], *, generator: torch.Generator) -> None:
        super().__init__()
        choose_backend()
        self.settings = model
        self.channels = tuple(channels)
        self.width = model.width
        self.projection = PatchProjection(model.patch_px, model.width, generator=generator)
        self.address = TokenAddress(len(channels), model.position_grid, model.width, generator=generator)
        self.blocks = nn.ModuleList(
            Block(model.width, model, depth=model.depth, generator=generator) for _ in range(model.depth)
        )
        self.norm = RMSNorm(model.width)

    def tokens(
        self, image: Float[Tensor, "b c y x"], channels: Sequence[str], *, layer: int | None = None
    ) -> Float[Tensor, "b c rows cols d"]:
        """Map an image to one vector per channel and patch.

        Args:
            image: Standardised pixels. A side that is no multiple of the patch is completed by mirroring.
            channels: Stain of each channel, in any order; a missing stain is simply absent.
            layer: Block whose output is taken, from 0; the final norm if absent.

        Raises:
            InputError: Channel names repeat, or the image is smaller than a patch.
            UsageError: No such block.
        """
        return self._dense(image, channels, () if layer is None else (layer,))[0]

    def features(
        self,
        image: Float[Tensor, "b c y x"],
        channels: Sequence[str],
        *,
        pool: Literal["channel", "all"] = "channel",
        layers: tuple[int, ...] = (),
    ) -> Float[Tensor, "b features"]:
        """Average tokens over the patches of each channel, or over everything.

        Args:
            image: Standardised pixels.
            channels: Stain of each channel.
            pool: `channel` concatenates the channels in the order of `channels`.
            layers: Blocks whose outputs are concatenated (within each channel); the final norm if empty.

        Raises:
            InputError: Channel names repeat, or the image is smaller than a patch.
            UsageError: No such block.
        """
        maps = torch.cat(self._dense(image, channels, layers), dim=-1)
        per_channel = maps.mean((2, 3))
        return per_channel.flatten(1) if pool == "channel" else per_channel.mean(1)

    def encode_grid(
        self,
        patches: Float[Tensor, "b rows cols c pixels"],
        stain_rows: Sequence[int],
        layers: tuple[int, ...] = (),
    ) -> list[Float[Tensor, "b rows cols c d"]]:
        """Encode all patches of channels given by their row of the stain table, in the order given."""
        _, rows, cols, channels, _ = patches.shape
        tokens = self.projection(patches) + self.address(rows, cols, stain_rows)
        layouts = grid_layouts(rows, cols, channels, self.settings.scan_order)
        encoded = self._run(tokens.flatten(1, 3), layouts, layers)
        return [result.view(-1, rows, cols, channels, self.width) for result in encoded]

    def encode_kept(
        self,
        patches: Float[Tensor, "b rows cols c pixels"],
        stain_rows: Sequence[int],
        kept: Int[Tensor, "b kept"],
        layouts: tuple[Layout, ...],
    ) -> Float[Tensor, "b kept d"]:
        """Encode some patches only; pixels of the others are never read.

        Args:
            patches: All patches, channels in the order of the arrangement.
            stain_rows: Row of the stain table of each channel.
            kept: Memory index of each kept token, ascending; see `kept_ids`.
            layouts: From `kept_layouts`.
        """
        batch, rows, cols, channels, pixels = patches.shape
        length = rows * cols * channels
        start = torch.arange(batch, device=kept.device).unsqueeze(1) * length
        seen = patches.reshape(-1, pixels).index_select(0, (kept + start).flatten())
        address = self.address(rows, cols, stain_rows).flatten(0, 2)
        tokens = self.projection(seen).view(*kept.shape, self.width) + functional.embedding(kept, address)
        return self._run(tokens, layouts, ())[0]

    def arrange(self, channels: Sequence[str], *, unnamed: Sequence[bool] = ()) -> Arrangement:
        """Order in which this model meets the channels of an image."""
        return arrange_channels(self.channels, channels, unnamed=unnamed)

    def _dense(
        self, image: Float[Tensor, "b c y x"], channels: Sequence[str], layers: tuple[int, ...]
    ) -> list[Float[Tensor, "b c rows cols d"]]:
        if len(channels) != image.shape[1]:
            found = f"an image has {image.shape[1]} channels, but {len(channels)} names were given"
            raise InputError(found, hint="name every channel once")
        arrangement = self.arrange(channels)
        patches = to_patches(reorder_channels(image, arrangement.order), self.settings.patch_px)
        maps = self.encode_grid(patches, arrangement.rows, layers)
        return [reorder_channels(tokens.permute(0, 3, 1, 2, 4), arrangement.restore) for tokens in maps]

    def _run(
        self, residual: Float[Tensor, "b L d"], layouts: tuple[Layout, ...], layers: tuple[int, ...]
    ) -> list[Float[Tensor, "b L d"]]:
        absent = [layer for layer in layers if not 0 <= layer < len(self.blocks)]
        if absent:
            found = f"layers {absent} do not exist: the model has blocks 0 to {len(self.blocks) - 1}"
            raise UsageError(found, hint="name blocks in that range with --layers")
        outputs = {}
        for number, block in enumerate(self.blocks):
            residual = block(residual, layouts[number % len(layouts)])
            outputs[number] = residual if number in layers else None
        if not layers:
            return [self.norm(residual)]
        return [tokens for layer in layers if (tokens := outputs[layer]) is not None]


def grid_layouts(rows: int, cols: int, channels: int, scan_order: ScanOrder) -> tuple[Layout, ...]:
    """Layouts of successive blocks over a full grid, to be repeated along the stack."""
    return tuple(Grid(rows, cols, channels, order) for order in ORDERS[scan_order])


def kept_layouts(hidden: Bool[Tensor, "b rows cols c"], scan_order: ScanOrder) -> tuple[Layout, ...]:
    """Layouts of successive blocks over the tokens that are not hidden, to be repeated along the stack.

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
    place, channel = _split_ids(kept_ids(hidden), hidden.shape[-1])
    ids = place * present + rank.gather(1, channel)
    return tuple(Kept.from_ids(ids, Grid(rows, cols, present, order)) for order in ORDERS[scan_order])


def kept_ids(hidden: Bool[Tensor, "b rows cols c"]) -> Int[Tensor, "b kept"]:
    """Memory indices of the tokens that are not hidden, ascending, equally many in each sample."""
    visible = ~hidden.flatten(1)
    counts = visible.sum(1)
    if not bool((counts == counts[0]).all()):
        msg = "samples of a batch must keep equally many tokens"
        raise AssertionError(msg)
    return visible.nonzero()[:, 1].view(len(hidden), -1)


def _split_ids(
    ids: Int[Tensor, "b kept"], channels: int
) -> tuple[Int[Tensor, "b kept"], Int[Tensor, "b kept"]]:
    return ids // channels, ids % channels
