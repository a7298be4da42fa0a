"""Tiles to features: batches run across fields, so that few of them are half empty."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from cellvim.config import EmbedSettings
from cellvim.embed.blocks import chosen_blocks
from cellvim.embed.fields import TiledField
from cellvim.embed.forward import encode_tiles, to_device
from cellvim.model import ChannelEncoder
from cellvim.store import PlateReader

Item = TypeVar("Item")


class Piece(NamedTuple):
    """Neighbouring tiles of one field."""

    tiled: TiledField
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        return self.stop == len(self.tiled.cut.corners)


class FieldEncoder:
    """Features of the tiles of one plate's fields.

    Args:
        encoder: Model in evaluation mode.
        plate: Plate that the fields are from.
        settings: Pooling, blocks, batch size, intensity.
    """

    def __init__(self, encoder: ChannelEncoder, plate: PlateReader, settings: EmbedSettings) -> None:
        self.encoder = encoder
        self.plate = plate
        self.settings = settings
        self.blocks = chosen_blocks(settings, len(encoder.blocks))
        self.device = next(encoder.parameters()).device
        self._held: tuple[TiledField, Tensor] | None = None

    def encode(
        self, fields: Iterable[TiledField]
    ) -> Iterator[tuple[TiledField, Float[ndarray, "tile features"]]]:
        """Yield each field with the features of its tiles, in order; NaN for a channel that is not valid.

        A tile's features do not depend on the tiles it shares a batch with, beyond the rounding of float32.
        """
        gathered: list[Float[ndarray, "tile features"]] = []
        running = ((pieces, self._forward(pieces)) for pieces in batches(fields, self.settings.batch_size))
        # One batch late: the device works on the next while the features of the last come back.
        for pieces, features in delayed(running):
            borders = np.cumsum([piece.stop - piece.start for piece in pieces])[:-1]
            for piece, part in zip(pieces, np.split(features.cpu().numpy(), borders), strict=True):
                gathered.append(part)
                if piece.is_last:
                    yield piece.tiled, self._finish(piece.tiled, np.concatenate(gathered))
                    gathered = []

    def _forward(self, pieces: Sequence[Piece]) -> Tensor:
        is_valid = pieces[0].tiled.is_valid
        channels = [channel for channel, valid in zip(self.plate.channels, is_valid, strict=True) if valid]
        images = torch.stack([tile for piece in pieces for tile in self._tiles(piece)])
        layers = self.blocks or self.settings.layers
        return encode_tiles(self.encoder, images, channels, self.settings, layers)

    def _tiles(self, piece: Piece) -> Iterator[Tensor]:
        tiled = piece.tiled
        pixels = self._on_device(tiled)
        height, width = tiled.tile_shape
        for index in range(piece.start, piece.stop):
            top, left = tiled.cut.corners[index]
            tile = pixels[:, top : top + height, left : left + width]
            if tiled.cut.labels is not None:
                number = tiled.cut.columns["Metadata_ObjectNumber"][index]
                is_object = tiled.cut.labels[top : top + height, left : left + width] == number
                dark = torch.from_numpy(tiled.dark).to(self.device)[:, None, None]
                tile = torch.where(torch.from_numpy(is_object).to(self.device), tile, dark)
            yield tile

    def _on_device(self, tiled: TiledField) -> Tensor:
        """Take a whole field to the device once, also if its tiles overlap or fall into several batches."""
        if self._held is None or self._held[0] is not tiled:
            self._held = tiled, to_device(torch.from_numpy(tiled.pixels), self.device)
        return self._held[1]

    def _finish(
        self, tiled: TiledField, encoded: Float[ndarray, "tile width"]
    ) -> Float[ndarray, "tile features"]:
        """Put features into the order of the table: block, channel, what a block gives; then intensities."""
        has_channels = self.settings.pool == "channel" and not self.encoder.needs_all_channels
        channels = int(tiled.is_valid.sum()) if has_channels else 1
        per_block = encoded.reshape(len(encoded), channels, max(1, len(self.blocks)), -1).swapaxes(1, 2)
        if has_channels:
            per_block = spread_channels(per_block, tiled.is_valid)
        parts = per_block.reshape(*per_block.shape[:2], -1)
        if self.settings.has_intensity:
            moments = self.plate.intensity.moments(tiled.key).astype(np.float32)
            moments[~tiled.is_valid] = np.nan
            shape = (*parts.shape[:2], moments.size)
            parts = np.concatenate([parts, np.broadcast_to(moments.reshape(-1), shape)], axis=2)
        return parts.reshape(len(encoded), -1)


def batches(fields: Iterable[TiledField], size: int) -> Iterator[list[Piece]]:
    """Fill batches with tiles of the same shape and channels, across fields."""
    batch: list[Piece] = []
    room = size
    for tiled in fields:
        if batch and not _can_stack(batch[0].tiled, tiled):
            yield batch
            batch, room = [], size
        start, count = 0, len(tiled.cut.corners)
        while start < count:
            stop = min(count, start + room)
            batch.append(Piece(tiled, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch


def delayed(items: Iterable[Item], *, by: int = 1) -> Iterator[Item]:
    """Yield the same items, each only after `by` later ones have been taken."""
    waiting: deque[Item] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > by:
            yield waiting.popleft()
    yield from waiting


def spread_channels(
    encoded: Float[ndarray, "tile block valid width"], is_valid: Bool[ndarray, " c"]
) -> Float[ndarray, "tile block c width"]:
    """Put valid channels at their place among all; the others are NaN."""
    tiles, blocks, _, width = encoded.shape
    spread = np.full((tiles, blocks, is_valid.size, width), np.nan, np.float32)
    spread[:, :, is_valid] = encoded
    return spread


def _can_stack(left: TiledField, right: TiledField) -> bool:
    return left.tile_shape == right.tile_shape and bool((left.is_valid == right.is_valid).all())
