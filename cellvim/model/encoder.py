"""The encoder: any image size and any named set of channels in, one token per patch and channel out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cellvim.config import ModelSettings
from cellvim.errors import InputError, UsageError
from cellvim.model.baselines import AttentionBlock
from cellvim.model.channel_embed import (
    Arrangement,
    PatchProjection,
    TokenAddress,
    arrange_channels,
    arrange_jointly,
    reorder_channels,
    to_patches,
    unmatched_stains,
)
from cellvim.model.device import check_kernel_name
from cellvim.model.initialize import truncated_normal_
from cellvim.model.mixer import Block, RMSNorm
from cellvim.model.sequence import Plan, grid_plan, kept_ids, kept_plan
from cellvim_kernels import Layout


@dataclass(frozen=True, eq=False)
class Encoded:
    """What one block, or the final norm, made of an image.

    Args:
        maps: One vector per patch and channel of the arrangement; T is 1 where tokens show all channels.
        class_token: The vector that stands for the whole image, in models that have one.
    """

    maps: Float[Tensor, "b rows cols T d"]
    class_token: Float[Tensor, "b d"] | None


class ChannelEncoder(nn.Module):
    """Channel-aware FastVim (FastChannelVim) and its relatives, the part of the model that `embed` uses.

    Args:
        model: Size, scan and backbone of the model.
        channels: Stains that get a row of their own in the stain table; all others share the `unknown` row. With
            joint tokens: the channels of every image, in this order.
        generator: Source of the initial weights.

    Raises:
        UsageError: CELLVIM_KERNEL names an unknown backend.

    Source:
        Kapse et al. 2025, "Fast Vision Mamba" (arXiv:2502.00594).
    """

    def __init__(self, model: ModelSettings, channels: Sequence[str], *, generator: torch.Generator) -> None:
        super().__init__()
        check_kernel_name()
        self.settings = model
        self.channels = tuple(channels)
        self.width = model.width
        self.is_checkpointed = False
        """Whether blocks are computed again on the way back instead of being remembered."""
        is_joint = model.tokenization == "joint"
        pixels = model.patch_px**2 * (len(channels) if is_joint else 1)
        stains = None if is_joint else len(channels)
        self.projection = PatchProjection(pixels, model.width, generator=generator)
        self.address = TokenAddress(stains, model.position_grid, model.width, generator=generator)
        self.class_token = nn.Parameter(torch.empty(model.width)) if model.has_class_token else None
        if self.class_token is not None:
            truncated_normal_(self.class_token, generator)
        self.blocks = nn.ModuleList(_blocks(model, generator))
        self.norm = RMSNorm(model.width)

    @property
    def needs_all_channels(self) -> bool:
        """Whether a token shows all channels, so that none may be missing."""
        return self.settings.tokenization == "joint"

    def tokens(
        self, image: Float[Tensor, "b c y x"], channels: Sequence[str], *, layer: int | None = None
    ) -> Float[Tensor, "b T rows cols d"]:
        """Map an image to one vector per channel and patch; with joint tokens, T is 1, else c.

        Args:
            image: Standardised pixels. A side that is no multiple of the patch is completed by mirroring.
            channels: Stain of each channel, in any order; a missing stain is simply absent.
            layer: Block whose output is taken, from 0; the final norm if absent.

        Raises:
            InputError: Channel names repeat, or the image is smaller than a patch.
            UsageError: No such block.
        """
        encoded, restore = self._dense(image, channels, () if layer is None else (layer,))
        return _maps_of_image(encoded[0], restore)

    def features(
        self,
        image: Float[Tensor, "b c y x"],
        channels: Sequence[str],
        *,
        pool: Literal["channel", "all"] = "channel",
        layers: tuple[int, ...] = (),
    ) -> Float[Tensor, "b features"]:
        """Average tokens over the patches of each channel, or over everything.

        With `pool` all, a model with a class token gives that instead of an average.

        Args:
            image: Standardised pixels.
            channels: Stain of each channel.
            pool: `channel` concatenates the channels in the order of `channels`.
            layers: Blocks whose outputs are concatenated (within each channel); the final norm if empty.

        Raises:
            InputError: Channel names repeat, or the image is smaller than a patch.
            UsageError: No such block.
        """
        encoded, restore = self._dense(image, channels, layers)
        if pool == "all" and self.class_token is not None:
            return torch.cat([e.class_token for e in encoded if e.class_token is not None], dim=-1)
        maps = torch.cat([_maps_of_image(each, restore) for each in encoded], dim=-1)
        per_channel = maps.mean((2, 3))
        return per_channel.flatten(1) if pool == "channel" else per_channel.mean(1)

    def encode_grid(
        self,
        patches: Float[Tensor, "b rows cols T pixels"],
        stain_rows: Sequence[int],
        layers: tuple[int, ...] = (),
    ) -> list[Encoded]:
        """Encode all patches, none of them hidden.

        Args:
            patches: From `cut`, channels in the order of the arrangement.
            stain_rows: Row of the stain table of each channel; not looked at where tokens show all channels.
            layers: Blocks whose outputs are given, in this order; the final norm alone if empty.

        Raises:
            UsageError: No such block.
        """
        batch, rows, cols, channels, _ = patches.shape
        tokens = self.projection(patches) + self.address(rows, cols, stain_rows)
        plan = grid_plan(self.settings, rows, cols, channels, batch=batch)
        outputs = self._run(tokens.flatten(1, 3), plan, layers)
        shape = (batch, rows, cols, channels, self.width)
        return [Encoded(maps.view(shape), class_token) for maps, class_token in outputs]

    def encode_kept(
        self,
        patches: Float[Tensor, "b rows cols T pixels"],
        stain_rows: Sequence[int],
        hidden: Bool[Tensor, "b rows cols T"],
    ) -> Float[Tensor, "b kept d"]:
        """Encode the patches that are not hidden, in memory order; pixels of the others are never read.

        Args:
            patches: All patches, channels in the order of the arrangement.
            stain_rows: Row of the stain table of each channel.
            hidden: Equally many in each sample; whole channels, or equally many of each channel.

        Raises:
            AssertionError: Samples hide unequally many tokens, or whole channels.
        """
        batch, rows, cols, channels, pixels = patches.shape
        kept = kept_ids(hidden)
        start = torch.arange(batch, device=kept.device).unsqueeze(1) * (rows * cols * channels)
        seen = patches.reshape(-1, pixels).index_select(0, (kept + start).flatten())
        address = self.address(rows, cols, stain_rows).flatten(0, 2)
        tokens = self.projection(seen).view(*kept.shape, self.width) + functional.embedding(kept, address)
        return self._run(tokens, kept_plan(self.settings, hidden), ())[0][0]

    def arrange(self, channels: Sequence[str], *, unnamed: Sequence[bool] = ()) -> Arrangement:
        """Order in which this model meets the channels of an image.

        Raises:
            InputError: Channel names repeat, or are not those that joint tokens need.
        """
        if self.needs_all_channels:
            return arrange_jointly(self.channels, channels)
        return arrange_channels(self.channels, channels, unnamed=unnamed)

    def unmatched(self, channels: Sequence[str]) -> tuple[str, ...]:
        """Channels that go by `unknown`, in the order given; none with joint tokens, which `arrange` refuses."""
        return () if self.needs_all_channels else unmatched_stains(self.channels, channels)

    def require_blocks(self, layers: Sequence[int]) -> None:
        """Check that the model has some blocks.

        Raises:
            UsageError: No such block.
        """
        absent = [layer for layer in layers if not 0 <= layer < len(self.blocks)]
        if absent:
            found = f"layers {absent} do not exist: the model has blocks 0 to {len(self.blocks) - 1}"
            raise UsageError(found, hint="name blocks in that range with --layers")

    def cut(
        self, image: Float[Tensor, "b c y x"], arrangement: Arrangement
    ) -> Float[Tensor, "b rows cols T pixels"]:
        """Cut an image into the patches that become tokens; with joint tokens, pixels go channel by channel."""
        patches = to_patches(reorder_channels(image, arrangement.order), self.settings.patch_px)
        return patches.flatten(3).unsqueeze(3) if self.needs_all_channels else patches

    def _dense(
        self, image: Float[Tensor, "b c y x"], channels: Sequence[str], layers: tuple[int, ...]
    ) -> tuple[list[Encoded], tuple[int, ...]]:
        if len(channels) != image.shape[1]:
            found = f"an image has {image.shape[1]} channels, but {len(channels)} names were given"
            raise InputError(found, hint="name every channel once")
        arrangement = self.arrange(channels)
        encoded = self.encode_grid(self.cut(image, arrangement), arrangement.rows, layers)
        return encoded, arrangement.restore

    def _run(
        self, tokens: Float[Tensor, "b L d"], plan: Plan, layers: tuple[int, ...]
    ) -> list[tuple[Float[Tensor, "b L d"], Float[Tensor, "b d"] | None]]:
        self.require_blocks(layers)
        stream = Stream(self._with_class_token(plan.arrange(tokens)))
        outputs = {}
        for number, block in enumerate(self.blocks):
            layout = plan.layouts[number % len(plan.layouts)]
            stream = run_block(block, stream, layout, is_checkpointed=self.is_checkpointed)
            if number in layers:
                outputs[number] = stream.total()
        chosen = [outputs[layer] for layer in layers] if layers else [stream.normed(self.norm)]
        return [self._split(sequence, plan) for sequence in chosen]

    def _with_class_token(self, sequence: Float[Tensor, "b L d"]) -> Float[Tensor, "b S d"]:
        if self.class_token is None:
            return sequence
        middle = sequence.shape[1] // 2
        token = self.class_token.expand(len(sequence), 1, -1)
        return torch.cat([sequence[:, :middle], token, sequence[:, middle:]], dim=1)

    def _split(
        self, sequence: Float[Tensor, "run_b S d"], plan: Plan
    ) -> tuple[Float[Tensor, "b L d"], Float[Tensor, "b d"] | None]:
        if self.class_token is None:
            return plan.restore(sequence), None
        middle = (sequence.shape[1] - 1) // 2
        others = torch.cat([sequence[:, :middle], sequence[:, middle + 1 :]], dim=1)
        return plan.restore(others), sequence[:, middle]


class Stream(NamedTuple):
    """The residual stream between blocks: float32, and what the last block has yet to add to it."""

    residual: Float[Tensor, "b L d"]
    update: Float[Tensor, "b L d"] | None = None

    def total(self) -> Float[Tensor, "b L d"]:
        return self.residual if self.update is None else self.residual + self.update

    def normed(self, norm: nn.Module) -> Float[Tensor, "b L d"]:
        # The sum first: what leaves the stream is float32, not the narrower type of an update.
        normed, _ = norm(None, self.total())
        result: Tensor = normed
        return result


def run_block(block: nn.Module, stream: Stream, layout: Layout, *, is_checkpointed: bool) -> Stream:
    """Run a block, and forget all but its input if asked to and if there will be a way back."""
    given = stream.update, stream.residual, layout
    if is_checkpointed and torch.is_grad_enabled():
        update, residual = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
    else:
        update, residual = block(*given)
    return Stream(residual, update)


def _blocks(model: ModelSettings, generator: torch.Generator) -> list[nn.Module]:
    if model.backbone == "channel_vit":
        return [AttentionBlock(model.width, generator=generator) for _ in range(math.ceil(model.depth / 2))]
    return [Block(model.width, model, depth=model.depth, generator=generator) for _ in range(model.depth)]


def _maps_of_image(encoded: Encoded, restore: tuple[int, ...]) -> Float[Tensor, "b T rows cols d"]:
    maps = encoded.maps.permute(0, 3, 1, 2, 4)
    return reorder_channels(maps, restore) if maps.shape[1] == len(restore) else maps
