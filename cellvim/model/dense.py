"""A map of tokens for a field of any size, tile by tile: the base for segmentation and for pooling by cell."""

from collections.abc import Sequence
from itertools import islice, product

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim.errors import UsageError
from cellvim.model.channel_embed import from_patches, to_patches
from cellvim.model.encoder import ChannelEncoder

Tile = tuple[int, int, int]
"""Sample of the batch, first token row and first token column."""


def dense_tokens(
    encoder: ChannelEncoder,
    image: Float[Tensor, "b c y x"],
    channels: Sequence[str],
    *,
    tile_px: int,
    overlap_px: int,
    layer: int | None = None,
    tiles_per_pass: int = 16,
) -> Float[Tensor, "b T rows cols d"]:
    """Map a field of any size to one vector per channel and patch; with joint tokens, T is 1, else c.

    Tiles begin on whole patches, are spread evenly, and meet the encoder as a training crop would; where they
    overlap, their tokens are averaged with weights that fall towards the edge of a tile, so no seam is left. A
    field that fits one tile gives just `encoder.tokens`. Token (r, q) shows the pixels from (r, q) times
    `patch_px`; a side that is no multiple of the patch is completed by mirroring.

    Gradients flow, but then every pass is kept; under `torch.inference_mode` memory is the map and one pass.

    Args:
        encoder: Model, usually in evaluation mode.
        image: Standardised pixels.
        channels: Stain of each channel, in any order.
        tile_px: Side of a tile, a multiple of the patch; the training crop is what the model knows best.
        overlap_px: Least number of pixels that neighbouring tiles share, rounded up to whole patches.
        layer: Block whose output is taken, from 0; the final norm if absent.
        tiles_per_pass: Tiles that the encoder sees at once; changes memory and time only.

    Raises:
        InputError: Channel names repeat, or the image is smaller than a patch.
        UsageError: The tile is no multiple of the patch, or not larger than the overlap; or no such block.

    Example: average the map over the patches of each cell, `labels` (rows cols) holding the cell of each patch.

        >>> from cellvim.config import ModelSettings
        >>> model = ModelSettings(width=16, depth=2, patch_px=8)
        >>> encoder = ChannelEncoder(model, ["DNA", "ER"], generator=torch.Generator().manual_seed(0))
        >>> field = torch.zeros(1, 2, 100, 72)
        >>> with torch.inference_mode():
        ...     maps = dense_tokens(encoder, field, ["DNA", "ER"], tile_px=64, overlap_px=16)
        >>> maps.shape
        torch.Size([1, 2, 13, 9, 16])
        >>> labels = torch.arange(13 * 9).view(13, 9) % 4
        >>> cells = torch.stack([maps[..., labels == cell, :].mean(2) for cell in range(4)])
        >>> cells.shape
        torch.Size([4, 1, 2, 16])
    """
    patch_px = encoder.settings.patch_px
    _check_tiles(tile_px, overlap_px, patch_px)
    height, width = image.shape[-2:]
    if max(height, width) <= tile_px:
        return encoder.tokens(image, channels, layer=layer)
    tile, overlap = tile_px // patch_px, -(-overlap_px // patch_px)
    rows, cols = -(-height // patch_px), -(-width // patch_px)
    whole = from_patches(to_patches(image, patch_px), rows * patch_px, cols * patch_px)
    row_weights = tile_weights(rows, tile, overlap)
    col_weights = tile_weights(cols, tile, overlap)
    size_px = min(tile, rows) * patch_px, min(tile, cols) * patch_px
    dtype = torch.promote_types(image.dtype, torch.float32)
    depth = 1 if encoder.settings.tokenization == "joint" else len(channels)
    blended = image.new_zeros(len(image), depth, rows, cols, encoder.width, dtype=dtype)
    tiles = iter(product(range(len(image)), row_weights, col_weights))
    while group := list(islice(tiles, tiles_per_pass)):
        cut = torch.cat([_cut(whole, place, patch_px, size_px) for place in group])
        for place, tokens in zip(group, encoder.tokens(cut, channels, layer=layer), strict=True):
            _add(blended, tokens, place, torch.outer(row_weights[place[1]], col_weights[place[2]]))
    return blended


def tile_weights(length: int, tile: int, overlap: int) -> dict[int, Float[Tensor, " tile"]]:
    """Spread tiles over one axis, and say how much each counts at each of its tokens.

    Args:
        length: Tokens along the axis.
        tile: Tokens of a tile; the axis itself is the only tile if it is not longer.
        overlap: Least number of tokens that neighbouring tiles share.

    Returns:
        By first token of each tile, float64 weights that are largest in the middle of the tile and above zero to
        its edge; over all tiles they add up to one at every token.
    """
    size = min(tile, length)
    gaps = -(-(length - size) // (tile - overlap))
    starts = [index * (length - size) // gaps for index in range(gaps + 1)] if gaps else [0]
    ramp = torch.arange(1, size + 1, dtype=torch.float64)
    tent = torch.minimum(ramp, ramp.flip(0))
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += tent
    return {start: tent / total[start : start + size] for start in starts}


def _check_tiles(tile_px: int, overlap_px: int, patch_px: int) -> None:
    if tile_px < patch_px or tile_px % patch_px:
        found = f"tiles of {tile_px} px are no multiple of the patch of {patch_px} px"
        raise UsageError(found, hint=f"use {max(1, round(tile_px / patch_px)) * patch_px} px")
    if not 0 <= overlap_px <= tile_px - patch_px:
        found = f"tiles of {tile_px} px cannot share {overlap_px} px with the next"
        raise UsageError(found, hint=f"overlap by 0 to {tile_px - patch_px} px")


def _cut(
    whole: Float[Tensor, "b c y x"], place: Tile, patch_px: int, size_px: tuple[int, int]
) -> Float[Tensor, "1 c ty tx"]:
    sample, top, left = place[0], place[1] * patch_px, place[2] * patch_px
    return whole[sample : sample + 1, :, top : top + size_px[0], left : left + size_px[1]]


def _add(
    blended: Float[Tensor, "b c rows cols d"],
    tokens: Float[Tensor, "c tr tq d"],
    place: Tile,
    weight: Float[Tensor, "tr tq"],
) -> None:
    sample, row, col = place
    height, width = weight.shape
    scaled = tokens * weight.to(tokens).unsqueeze(-1)
    blended[sample, :, row : row + height, col : col + width] += scaled
