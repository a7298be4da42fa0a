"""What the encoder does not see: dynamic channel-patch masking, a function of seed and step alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from numpy import ndarray
from torch import Tensor

from cellvim.config import MaskingSettings
from cellvim.errors import UsageError

STREAM = 0x6D61736B
CHANNEL_STREAM = 0x6368616E
NAME_STREAM = 0x6E616D65
"""Keep the draws of masks, channels and names apart, and from others made from the same seed and step."""


@dataclass(frozen=True, eq=False)
class Mask:
    """What is hidden in one step, channels in the order of the image.

    Args:
        hidden: True where a patch is hidden. Every sample shows equally many patches and channels.
        unnamed: True where a channel goes by `unknown` in this step.
        kind: Whether patches are hidden, or whole channels.
    """

    hidden: Bool[Tensor, "b c rows cols"]
    unnamed: Bool[Tensor, " c"]
    kind: Literal["patch", "channel"]

    def to(self, device: torch.device) -> "Mask":
        return Mask(self.hidden.to(device), self.unnamed.to(device), self.kind)


def draw_mask(
    settings: MaskingSettings, *, batch: int, channels: int, grid: tuple[int, int], seed: int, step: int
) -> Mask:
    """Draw the mask of one training step.

    A patch step hides `mask_ratio` of the patches, independently in each channel; each channel may go by
    `unknown`. A channel step draws k from 0 to T - 1 and hides k whole channels of each sample, other ones in
    each sample; the rest stays fully visible. With k = 0 nothing would be left to predict, so that is a patch
    step too.

    Args:
        settings: Ratio, share of channel steps, chance to go by `unknown`.
        batch: Samples in the batch.
        channels: Channels T of the image.
        grid: Rows and columns of patches.
        seed: Seed of the run.
        step: Number of the step; the same seed and step give the same mask.

    Raises:
        UsageError: The grid is a single patch, of which none can be hidden.
    """
    rows, cols = grid
    if rows * cols < 2:
        found = f"a crop of {rows} x {cols} patches cannot be masked"
        raise UsageError(found, hint="raise crop_px to at least two patches")
    generator = np.random.default_rng((STREAM, seed, step))
    is_channel_step = generator.random() < settings.channel_steps
    targets = int(generator.integers(channels)) if is_channel_step else 0
    if targets:
        hidden_channels = _lowest(generator.random((batch, channels)), targets)
        hidden = np.broadcast_to(hidden_channels[:, :, None, None], (batch, channels, rows, cols))
        return Mask(torch.tensor(hidden), torch.zeros(channels, dtype=torch.bool), "channel")
    kept = max(1, int(rows * cols * (1 - settings.mask_ratio)))
    noise = generator.random((batch, channels, rows * cols))
    hidden = ~_lowest(noise, min(kept, rows * cols - 1))
    unnamed = generator.random(channels) < settings.name_dropout
    return Mask(torch.tensor(hidden.reshape(batch, channels, rows, cols)), torch.tensor(unnamed), "patch")


def draw_channels(settings: MaskingSettings, *, channels: int, seed: int, step: int) -> tuple[int, ...]:
    """Draw the channels that a step works with: hierarchical channel sampling, one choice for the whole batch.

    It comes before masking. The step is that of an image without the other channels, which are neither seen
    nor predicted: cut the images and the names to the drawn channels, and draw the mask for that many. So a
    channel step hides k of the drawn ones only, and a step with one channel is always a patch step.

    Args:
        settings: Whether channels are sampled; if not, all are drawn.
        channels: Channels T of the image.
        seed: Seed of the run.
        step: Number of the step; the same seed and step give the same channels.

    Returns:
        Indices into the image's channels, ascending; their number is uniform over 1 to T.

    Source:
        Bao et al. 2024, "Channel Vision Transformers" (arXiv:2309.16108).
    """
    if not settings.channel_sampling:
        return tuple(range(channels))
    generator = np.random.default_rng((CHANNEL_STREAM, seed, step))
    count = int(generator.integers(1, channels + 1))
    return tuple(sorted(generator.permutation(channels)[:count].tolist()))


def draw_names(
    settings: MaskingSettings, channels: Sequence[str], *, seed: int, step: int
) -> tuple[str, ...]:
    """Draw which channels of an unmasked step go by a name that no table has, so that the row `unknown` is learned.

    Args:
        settings: Chance of it.
        channels: Names of the channels shown.
        seed: Seed of the run.
        step: Number of the step; the same seed and step give the same names.
    """
    chances = np.random.default_rng((NAME_STREAM, seed, step)).random(len(channels))
    return tuple(
        f"{name} (unnamed)" if chance < settings.name_dropout else name
        for name, chance in zip(channels, chances, strict=True)
    )


def _lowest(noise: Shaped[ndarray, "*groups n"], count: int) -> Shaped[ndarray, "*groups n"]:
    """True at the `count` smallest values along the last axis."""
    rank = noise.argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable")
    is_low: ndarray = rank < count
    return is_low
