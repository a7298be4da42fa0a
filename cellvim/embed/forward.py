"""The forward pass of a batch of tiles."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim.config import EmbedSettings
from cellvim.model import ChannelEncoder

PRECISION = "float32"
"""Of weights, pixels and products, on every device: embeddings of one screen are often made on several machines and
then compared, and bfloat16 (8 bits) or TF32 (10 bits) on some of them would look like a batch effect."""


@torch.inference_mode()
def encode_tiles(
    encoder: ChannelEncoder,
    images: Float[Tensor, "tile c y x"],
    channels: Sequence[str],
    settings: EmbedSettings,
    layers: tuple[int, ...],
) -> Float[Tensor, "tile features"]:
    """Features of some tiles, on their device; nothing here waits for it.

    Args:
        encoder: Model in evaluation mode.
        images: Standardised pixels.
        channels: Stains of the tiles.
        settings: Pooling.
        layers: Blocks whose outputs are concatenated; the final norm if empty.
    """
    # cuDNN's convolutions round to TF32 unless told not to.
    with torch.backends.cudnn.flags(allow_tf32=False):
        return encoder.features(images, channels, pool=settings.pool, layers=layers).float()


def to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Hand pixels over; a GPU fetches them by itself, while it computes what came before."""
    if device.type != "cuda":
        return pixels.to(device)
    return pixels.pin_memory().to(device, non_blocking=True)
