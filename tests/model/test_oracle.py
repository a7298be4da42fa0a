"""The equations against published models at toy size: features, logits and every gradient."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.model import ChannelEncoder
from cellvim.model.channel_embed import to_patches

TOLERANCE = 1e-5
"""Relative error in the 2-norm that the published float64 files must be met within."""

MIXER_NAMES = {
    "conv_weight": ("conv1d.weight", "conv1d_b.weight"),
    "conv_bias": ("conv1d.bias", "conv1d_b.bias"),
    "x_proj": ("x_proj.weight", "x_proj_b.weight"),
    "dt_weight": ("dt_proj.weight", "dt_proj_b.weight"),
    "dt_bias": ("dt_proj.bias", "dt_proj_b.bias"),
    "A_log": ("A_log", "A_b_log"),
    "D": ("D", "D_b"),
    "norm_weight": ("layernorm.weight",),
    "norm_bias": ("layernorm.bias",),
    "in_proj.weight": ("in_proj.weight",),
    "out_proj.weight": ("out_proj.weight",),
}


def published_names(name: str) -> tuple[str, ...]:
    """Published tensors that one of our parameters stands for: two where it holds both directions."""
    single = {
        "projection.linear.weight": "patch_embed.proj.weight",
        "projection.linear.bias": "patch_embed.proj.bias",
        "address.stain": "patch_embed.channel_embed.weight",
        "address.position": "pos_embed",
        "norm.weight": "norm_f.weight",
    }
    if name in single:
        return (single[name],)
    _, number, rest = name.split(".", 2)
    if rest == "norm.weight":
        return (f"layers.{number}.norm.weight",)
    return tuple(f"layers.{number}.mixer.{theirs}" for theirs in MIXER_NAMES[rest.removeprefix("mixer.")])


def gathered(tensors: dict[str, Tensor], prefix: str, name: str, like: Tensor) -> Tensor:
    found = [tensors[f"{prefix}/{theirs}"] for theirs in published_names(name)]
    if name == "address.stain":
        # The published table has no row for unknown stains.
        return torch.cat([found[0], torch.zeros_like(found[0][:1])])
    if len(found) == 1:
        return found[0].reshape(like.shape)
    return torch.stack([tensor.reshape(like.shape[1:]) for tensor in found])


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["config"])


def build(tensors: dict[str, Tensor], config: dict[str, object]) -> ChannelEncoder:
    side = int(tensors["state/pos_embed"].shape[1] ** 0.5)
    settings = ModelSettings.model_validate(
        {
            "width": config["embed_dim"],
            "depth": config["depth"],
            "patch_px": config["patch_size"],
            "position_grid": side,
        }
    )
    stains = [f"stain {row:02d}" for row in range(len(tensors["state/patch_embed.channel_embed.weight"]))]
    encoder = ChannelEncoder(settings, stains, generator=torch.Generator()).double()
    state = {name: gathered(tensors, "state", name, mine) for name, mine in encoder.state_dict().items()}
    encoder.load_state_dict(state, strict=True)
    return encoder


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("kernel", ["naive", "torch"])
@pytest.mark.parametrize("name", ["channel_mean", "channel_subset"])
def test_published_outputs_and_gradients_are_reproduced(
    shared: Path, name: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", kernel)
    tensors, config = read(shared / "oracle" / f"{name}.safetensors")
    encoder = build(tensors, config)
    image = tensors["input/image"].requires_grad_()
    rows = tensors.get("input/channel_ids", torch.arange(image.shape[1])).tolist()

    channels = [encoder.channels[row] for row in rows]
    features = encoder.features(image, channels, pool="all")
    (encoded,) = encoder.encode_grid(to_patches(image, encoder.settings.patch_px), rows)
    logits = torch.nn.functional.linear(features, tensors["state/head.weight"], tensors["state/head.bias"])
    loss = logits.log_softmax(-1)[:, 0].sum()
    loss.backward()

    assert relative_error(encoded.maps.flatten(1, 3), tensors["output/tokens"]) < TOLERANCE
    assert relative_error(features, tensors["output/features"]) < TOLERANCE
    assert relative_error(logits, tensors["output/logits"]) < TOLERANCE
    assert relative_error(loss, tensors["output/loss"]) < TOLERANCE
    assert image.grad is not None
    assert relative_error(image.grad, tensors["input_grad/image"]) < TOLERANCE
    if "grad/head.weight" in tensors:
        for parameter, value in encoder.named_parameters():
            assert value.grad is not None
            expected = gathered(tensors, "grad", parameter, value)
            assert relative_error(value.grad, expected) < TOLERANCE, parameter
