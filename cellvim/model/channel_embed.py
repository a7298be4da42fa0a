"""Pixels to tokens, one per patch and channel, addressed by the name of the stain and the place in the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from cellvim.errors import InputError
from cellvim.model.initialize import lecun_normal_, linear, truncated_normal_

UNKNOWN = "unknown"
"""Name of the embedding row for stains that the model was not trained on."""


@dataclass(frozen=True)
class Arrangement:
    """The order in which a model meets the channels of an image, whatever order the file has.

    Args:
        rows: Row of the stain table of each channel, in the model's order.
        order: Index into the image's channels of each channel, in the model's order.
    """

    rows: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def restore(self) -> tuple[int, ...]:
        """Index into the model's order of each channel of the image."""
        return tuple(self.order.index(i) for i in range(len(self.order)))


def arrange_channels(
    known: Sequence[str], channels: Sequence[str], *, unnamed: Sequence[bool] = ()
) -> Arrangement:
    """Sort channels: known stains in the order of the table, then unknown ones by name.

    Stains match by name, ignoring case and surrounding blanks, and nothing else: ``Hoechst`` is not ``DNA``.

    Args:
        known: Stains of the table.
        channels: Stains of the image, one per channel.
        unnamed: True where a channel goes by `UNKNOWN` even if it is known; no channel if empty.

    Raises:
        InputError: No channel, or two of one name.
    """
    names = [_key(name) for name in channels]
    if not names or len(set(names)) < len(names):
        found = f"channels {list(channels)} are not distinct names"
        raise InputError(
            found, hint="give every channel a name of its own, for example with ingest --channels"
        )
    row_of_name = {_key(name): row for row, name in enumerate(known)}
    hidden = unnamed or [False] * len(names)
    rows = [
        len(known) if is_unnamed else row_of_name.get(name, len(known))
        for name, is_unnamed in zip(names, hidden, strict=True)
    ]
    order = sorted(range(len(names)), key=lambda i: (rows[i], names[i]))
    return Arrangement(rows=tuple(rows[i] for i in order), order=tuple(order))


def arrange_jointly(known: Sequence[str], channels: Sequence[str]) -> Arrangement:
    """Put channels into the order of a model whose tokens show all of them at once.

    Args:
        known: Channels that the model was trained with.
        channels: Channels of the image, in any order.

    Raises:
        InputError: The image has other channels.
    """
    names = [_key(name) for name in channels]
    wanted = [_key(name) for name in known]
    if sorted(names) != sorted(wanted) or len(set(names)) < len(names):
        found = (
            f"the model needs the channels {', '.join(known)} together, the image has {', '.join(channels)}"
        )
        raise InputError(
            found, hint="name the channels alike at ingest, or use a model with a token per channel"
        )
    return Arrangement(rows=(), order=tuple(names.index(name) for name in wanted))


def unmatched_stains(known: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Channels that have no row of their own in a table of stains, in the order given."""
    names = {_key(name) for name in known}
    return tuple(channel for channel in channels if _key(channel) not in names)


def _key(name: str) -> str:
    return name.strip().casefold()


class TokenAddress(nn.Module):
    """Learned vectors for which stain a token shows and where it lies.

    Args:
        stains: Known stains; one row more serves all others. None where a token shows all channels together.
        grid: Side of the stored table of positions, or its rows and columns, in tokens.
        width: Length of the vectors.
        generator: Source of the initial values.
    """

    def __init__(
        self, stains: int | None, grid: int | tuple[int, int], width: int, *, generator: torch.Generator
    ) -> None:
        super().__init__()
        rows, cols = (grid, grid) if isinstance(grid, int) else grid
        self.stain = None if stains is None else nn.Parameter(torch.empty(stains + 1, width))
        self.position = nn.Parameter(torch.empty(rows, cols, width))
        if self.stain is not None:
            truncated_normal_(self.stain, generator)
        truncated_normal_(self.position, generator)

    def forward(self, rows: int, cols: int, stain_rows: Sequence[int]) -> Float[Tensor, "rows cols T d"]:
        """Add both for every token of a grid; positions of other grids are interpolated (bicubic)."""
        position: Tensor = self.position
        if position.shape[:2] != (rows, cols):
            image = position.permute(2, 0, 1).unsqueeze(0)
            resized = functional.interpolate(image, (rows, cols), mode="bicubic", align_corners=False)
            position = resized[0].permute(1, 2, 0)
        if self.stain is None:
            return position.unsqueeze(2)
        stain = self.stain[torch.tensor(stain_rows, device=self.stain.device)]
        return position.unsqueeze(2) + stain


class PatchProjection(nn.Module):
    """One linear map from the pixels of a patch to a token, shared by all channels if each has its own tokens."""

    def __init__(self, pixels: int, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear(pixels, width, has_bias=True)
        lecun_normal_(self.linear.weight, generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, patches: Float[Tensor, "*tokens pixels"]) -> Float[Tensor, "*tokens d"]:
        tokens: Tensor = self.linear(patches)
        return tokens.to(torch.promote_types(tokens.dtype, torch.float32))


def reorder_channels(image: Shaped[Tensor, "b c *rest"], order: Sequence[int]) -> Shaped[Tensor, "b c *rest"]:
    """Put the channels of an image into another order; no copy if it is theirs already."""
    if list(order) == sorted(order):
        return image
    return image.index_select(1, torch.tensor(order, device=image.device))


def to_patches(image: Float[Tensor, "b c y x"], patch_px: int) -> Float[Tensor, "b rows cols c pixels"]:
    """Cut an image into patches, pixels row by row.

    A side that is no multiple of the patch is completed by mirroring its lower or right margin.

    Raises:
        InputError: The image is smaller than one patch.
    """
    height, width = image.shape[-2:]
    if min(height, width) < patch_px:
        found = f"an image of {height} x {width} px is smaller than one patch of {patch_px} px"
        raise InputError(found, hint="use larger tiles")
    missing_y, missing_x = -height % patch_px, -width % patch_px
    if missing_y or missing_x:
        image = functional.pad(image, (0, missing_x, 0, missing_y), mode="reflect")
    batch, channels, height, width = image.shape
    rows, cols = height // patch_px, width // patch_px
    cut = image.reshape(batch, channels, rows, patch_px, cols, patch_px)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(4)


def from_patches(
    patches: Float[Tensor, "b rows cols c pixels"], height: int, width: int
) -> Float[Tensor, "b c {height} {width}"]:
    """Undo `to_patches`, dropping what it added at the margins."""
    batch, rows, cols, channels, pixels = patches.shape
    side = math.isqrt(pixels)
    uncut = patches.reshape(batch, rows, cols, channels, side, side).permute(0, 3, 1, 4, 2, 5)
    return uncut.reshape(batch, channels, rows * side, cols * side)[:, :, :height, :width]
