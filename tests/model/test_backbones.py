"""Baselines and variants of the encoder: each is what it is called, and can be trained. Their laws: `test_laws.py`."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cellvim.config import MaskingSettings, ModelSettings, PretrainSettings
from cellvim.errors import InputError, UsageError
from cellvim.model import ChannelEncoder, MaskedAutoencoder, draw_mask
from cellvim.model.baselines import attention_heads
from cellvim.model.channel_embed import to_patches
from cellvim_kernels import Grid

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
BACKBONES = ["fast_channel_vim", "channel_vim", "channel_vit", "bag_of_channels"]
VARIANTS: list[dict[str, Any]] = [
    {"backbone": "channel_vim"},
    {"backbone": "channel_vim", "scan_order": "spatial-first"},
    {"backbone": "channel_vit"},
    {"backbone": "bag_of_channels"},
    {"backbone": "bag_of_channels", "scan_path": "colwise", "pool": "max"},
    {"scan_path": "colwise"},
    {"scan_path": "colwise", "scan_order": "spatial-first", "pool": "max"},
    {"is_rotated": False},
    {"has_inner_norm": False},
    {"pool_divisor": "width", "backward_rows": "published"},
    {"position_grid": (3, 5)},
    {"is_decoder_pooled": False},
]


def model_of(settings: ModelSettings, **changes: Any) -> MaskedAutoencoder:
    """A toy model, weights large enough that no term hides."""
    checked = ModelSettings.checked({**settings.model_dump(), **changes})
    model = MaskedAutoencoder(checked, STAINS, seed=3).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.3)
    return model


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest, settings: ModelSettings) -> MaskedAutoencoder:
    return model_of(settings, **request.param)


@pytest.mark.parametrize("channel_steps", [0.0, 1.0])
def test_training_reaches_every_weight(
    variant: MaskedAutoencoder, image: Tensor, channel_steps: float
) -> None:
    masking = MaskingSettings(channel_steps=channel_steps, mask_ratio=0.5, name_dropout=0)
    drawn = (draw_mask(masking, batch=3, channels=5, grid=(4, 6), seed=0, step=step) for step in range(50))
    mask = next(mask for mask in drawn if mask.kind == "channel" or not channel_steps)
    assert mask.kind == ("channel" if channel_steps else "patch")
    variant(image, STAINS, mask, 0.01).loss.backward()
    for name, parameter in variant.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_recomputed_blocks_give_the_same_gradients(variant: MaskedAutoencoder, image: Tensor) -> None:
    mask = draw_mask(MaskingSettings(channel_steps=0.0), batch=3, channels=5, grid=(4, 6), seed=0, step=0)
    gradients = []
    for is_checkpointed in (False, True):
        variant.encoder.is_checkpointed = variant.decoder.is_checkpointed = is_checkpointed
        loss = variant(image, STAINS, mask, 0.01).loss
        gradients.append(torch.autograd.grad(loss, list(variant.parameters())))
    for remembered, recomputed in zip(*gradients, strict=True):
        assert torch.equal(remembered, recomputed)


def test_a_bag_of_channels_sees_each_channel_alone(settings: ModelSettings, image: Tensor) -> None:
    encoder = model_of(settings, backbone="bag_of_channels").encoder
    together = encoder.tokens(image, STAINS)
    for channel, stain in enumerate(STAINS):
        alone = encoder.tokens(image[:, channel : channel + 1], [stain])
        torch.testing.assert_close(together[:, channel : channel + 1], alone)
    of_family = model_of(settings).encoder
    assert not torch.allclose(of_family.tokens(image, STAINS)[:, :1], of_family.tokens(image[:, :1], ["DNA"]))


def test_the_unpooled_baseline_tells_tokens_of_a_row_apart_in_its_scan(
    settings: ModelSettings, image: Tensor
) -> None:
    """Moving a patch within its row leaves pooled cells alone, and not the cells of a scan over all tokens."""
    for backbone, is_moved in (("fast_channel_vim", False), ("channel_vim", True)):
        # One block without a convolution that mixes neighbours, and without positions.
        encoder = model_of(settings, backbone=backbone, depth=1).encoder
        with torch.no_grad():
            encoder.address.position.zero_()
            mixer = encoder.blocks[0].mixer
            mixer.conv_weight[..., :-1] = 0
        swapped = image.clone()
        swapped[..., :8], swapped[..., 8:16] = image[..., 8:16], image[..., :8]
        rest, rest_swapped = (encoder.tokens(x, STAINS)[..., 2:, :] for x in (image, swapped))
        assert torch.allclose(rest, rest_swapped) is not is_moved


def test_attention_is_that_of_torch(settings: ModelSettings) -> None:
    encoder = model_of(settings, backbone="channel_vit", width=24, depth=2).encoder
    (block,) = encoder.blocks
    tokens = torch.randn(2, 7, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    reference = torch.nn.MultiheadAttention(24, attention_heads(24), batch_first=True).double()
    reference.load_state_dict(
        {
            "in_proj_weight": block.qkv.weight,
            "in_proj_bias": block.qkv.bias,
            "out_proj.weight": block.projection.weight,
            "out_proj.bias": block.projection.bias,
        }
    )
    normed = block.attention_norm(tokens)
    attended = tokens + reference(normed, normed, normed, need_weights=False)[0]
    expected = attended + block.narrow(functional.gelu(block.widen(block.perceptron_norm(attended))))
    update, stream = block(None, tokens, Grid(1, 7, 1))
    torch.testing.assert_close(stream + update, expected)
    torch.testing.assert_close(block(update, stream, Grid(1, 7, 1)), block(None, expected, Grid(1, 7, 1)))
    assert len(encoder.blocks) == 1  # an attention block stands for two of the scan


@pytest.mark.parametrize(("width", "heads"), [(96, 3), (192, 3), (384, 6), (768, 12), (24, 3), (10, 1)])
def test_heads_are_as_wide_as_three_of_them_allow(width: int, heads: int) -> None:
    assert attention_heads(width) == heads


def test_backbones_have_about_as_many_weights() -> None:
    counts = {}
    for backbone in BACKBONES:
        encoder = ChannelEncoder(
            ModelSettings(backbone=backbone), STAINS, generator=torch.Generator().manual_seed(0)
        )
        counts[backbone] = sum(parameter.numel() for parameter in encoder.parameters())
    assert counts["channel_vim"] == counts["bag_of_channels"] == counts["fast_channel_vim"]
    assert 0.6 < counts["channel_vit"] / counts["fast_channel_vim"] < 1.1


def test_joint_tokens_show_all_channels_in_the_order_of_the_model(
    settings: ModelSettings, image: Tensor
) -> None:
    model = model_of(settings, tokenization="joint")
    tokens = model.encoder.tokens(image, STAINS)
    assert tokens.shape == (3, 1, 4, 6, settings.width)
    order = [3, 0, 4, 2, 1]
    assert torch.equal(model.encoder.tokens(image[:, order], [STAINS[i].lower() for i in order]), tokens)
    with pytest.raises(InputError, match="needs the channels DNA, ER, RNA, AGP, Mito together"):
        model.encoder.tokens(image[:, :4], STAINS[:4])
    masking = MaskingSettings(channel_steps=0.0)
    mask = draw_mask(masking, batch=3, channels=5, grid=(4, 6), seed=0, step=0)
    shuffled = image[:, order]
    result = model(shuffled, [STAINS[i] for i in order], mask, 0.01)
    assert result.prediction.shape == image.shape
    # Hidden where the first channel of the model is, which is the second of this image.
    assert torch.equal(result.hidden, mask.hidden[:, 1:2].expand_as(mask.hidden))
    is_hidden = result.hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)
    expected = (result.prediction - shuffled).square()[is_hidden].mean()
    torch.testing.assert_close(result.pixel_loss, expected)


def test_a_class_token_stands_in_the_middle_and_for_the_image(settings: ModelSettings, image: Tensor) -> None:
    encoder = model_of(settings, backbone="channel_vim", has_class_token=True).encoder
    (encoded,) = encoder.encode_grid(to_patches(image, 8), range(5))
    assert encoded.class_token is not None
    assert torch.equal(encoder.features(image, STAINS, pool="all"), encoded.class_token)
    assert encoder.features(image, STAINS).shape == (3, 5 * settings.width)
    with torch.no_grad():
        changed = encoder.class_token.add_(1)
    assert changed is not None
    assert not torch.allclose(encoder.tokens(image, STAINS), encoded.maps.permute(0, 3, 1, 2, 4))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="has_class_token needs backbone channel_vim"):
        ModelSettings.checked({"has_class_token": True})
    with pytest.raises(UsageError, match=r"set masking\.channel_steps to 0"):
        PretrainSettings.checked({"model": {"tokenization": "joint"}})
    sampled = {"channel_steps": 0, "channel_sampling": True}
    with pytest.raises(UsageError, match=r"set masking\.channel_sampling to false"):
        PretrainSettings.checked({"model": {"tokenization": "joint"}, "masking": sampled})
    with pytest.raises(UsageError, match="a model with a class token cannot do"):
        PretrainSettings.checked({"model": {"backbone": "channel_vim", "has_class_token": True}})
