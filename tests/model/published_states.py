"""Configurations and random weights of published models at toy size."""

from typing import Any

import torch
from torch import Tensor

from tests.model.published_definition import grid_of

BASE: dict[str, Any] = {"img_size": [32, 32], "patch_size": 8, "stride": 8, "depth": 2, "embed_dim": 20}
IMAGE = {**BASE, "model": "FastVim", "channels": 3, "num_classes": 5}
CHANNEL = {**BASE, "model": "FastChannelVim", "channels": 6, "num_classes": 5, "hcs": True}
MASKED = {
    **BASE, "model": "FastMaskVimMAE", "channels": 3, "decoder_embed_dim": 12, "decoder_depth": 2,
    "norm_pix_loss": True, "mask_ratio": 0.75,
}  # fmt: skip


def random_state(config: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Weights of the named sizes, large enough that no term hides."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) * 0.4
        for name, shape in shapes_of(config).items()
    }


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    rows, cols = grid_of(config)
    width, side, channels = config["embed_dim"], config["patch_size"], config["channels"]
    is_channel, is_masked = config["model"] == "FastChannelVim", config["model"] == "FastMaskVimMAE"
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (width, *((1, 1) if is_channel else (channels,)), side, side),
        "patch_embed.proj.bias": (width,),
        "norm_f.weight": (width,),
        **blocks("layers", config["depth"], width, config),
    }
    if is_channel:
        shapes["patch_embed.channel_embed.weight"] = (channels, width)
    if config.get("if_abs_pos_embed", True):
        shapes["pos_embed"] = (1, rows * cols + config.get("spare", 0), width)
    if config.get("if_cls_token"):
        shapes["cls_token"] = (1, 1, width)
    if is_masked:
        inner, pixels = config["decoder_embed_dim"], side * side * channels
        shapes |= {
            "decoder_embed.weight": (inner, width), "decoder_embed.bias": (inner,), "mask_token": (1, 1, inner),
            "decoder_pos_embed": (1, rows * cols, inner), "decoder_norm.weight": (inner,),
            "decoder_pred.weight": (pixels, inner), "decoder_pred.bias": (pixels,),
            **blocks("decoder_blocks", config["decoder_depth"], inner, config),
        }  # fmt: skip
    else:
        shapes |= {"head.weight": (config["num_classes"], width), "head.bias": (config["num_classes"],)}
    return shapes


def blocks(stack: str, depth: int, width: int, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    inner, rank, state = 2 * width, -(-width // 16), config.get("state", 4)
    shapes: dict[str, tuple[int, ...]] = {
        "norm.weight": (width,), "mixer.in_proj.weight": (2 * inner, width), "mixer.out_proj.weight": (width, inner),
        "mixer.A_log": (inner, state), "mixer.A_b_log": (inner, state), "mixer.D": (inner,), "mixer.D_b": (inner,),
    }  # fmt: skip
    for suffix in ("", "_b"):
        shapes |= {
            f"mixer.conv1d{suffix}.weight": (inner, 1, 4), f"mixer.conv1d{suffix}.bias": (inner,),
            f"mixer.x_proj{suffix}.weight": (rank + 2 * state, inner),
            f"mixer.dt_proj{suffix}.weight": (inner, rank), f"mixer.dt_proj{suffix}.bias": (inner,),
        }  # fmt: skip
    if config.get("use_norm_after_ssm", True):
        shapes |= {"mixer.layernorm.weight": (inner,), "mixer.layernorm.bias": (inner,)}
    return {f"{stack}.{number}.{name}": shape for number in range(depth) for name, shape in shapes.items()}


def random_image(config: dict[str, Any], channels: int) -> Tensor:
    rows, cols = grid_of(config)
    side = config["patch_size"]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, rows * side, cols * side, generator=generator, dtype=torch.float64)
