"""The forward pass of tiles: into the device's memory, through the encoder, and back."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy import ndarray
from torch import Tensor

from cellvim.config import EmbedSettings
from cellvim.model import ChannelEncoder

PRECISION = "float32"
"""Of weights, pixels and products, on every device: embeddings of one screen are often made on several machines and
then compared, and bfloat16 (8 bits) or TF32 (10 bits) on some of them would look like a batch effect."""


@torch.inference_mode()
def encode_tiles(
    encoder: ChannelEncoder,
    fields: Sequence[Float[ndarray, "_ c y x"]],
    channels: Sequence[str],
    settings: EmbedSettings,
) -> Float32[ndarray, "tile features"]:
    """Features of the tiles of some fields, one row per tile.

    On a GPU, copying and computing are handed over batch after batch without waiting for the one before; the only
    wait is for the result of all.

    Args:
        encoder: Model in evaluation mode.
        fields: Tiles of each field, all of one size.
        channels: Stains of the tiles.
        settings: Pooling, blocks, tiles per forward pass.
    """
    device = next(encoder.parameters()).device
    staged = _stage(fields, device)
    # cuDNN's convolutions round to TF32 unless told not to.
    with torch.backends.cudnn.flags(allow_tf32=False):
        parts = [
            encoder.features(
                batch.to(device, non_blocking=True), channels, pool=settings.pool, layers=settings.layers
            ).float()
            for batch in staged.split(settings.batch_size)
        ]
        encoded: Float32[ndarray, "tile features"] = torch.cat(parts).cpu().numpy()
    return encoded


def _stage(fields: Sequence[Float[ndarray, "_ c y x"]], device: torch.device) -> Float[Tensor, "tile c y x"]:
    """All tiles in one piece of memory, from which a GPU can fetch them by itself where there is one."""
    count = sum(len(tiles) for tiles in fields)
    staged = torch.empty((count, *fields[0].shape[1:]), dtype=torch.float32, pin_memory=device.type == "cuda")
    np.concatenate(fields, out=staged.numpy())
    return staged
