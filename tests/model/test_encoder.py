"""Laws of the encoder: channels by name, any size, any batch."""

import pytest
import torch
from torch import Tensor

from cellvim.config import PRESETS, ModelSettings
from cellvim.errors import InputError, UsageError
from cellvim.model import ChannelEncoder
from cellvim.model.channel_embed import from_patches, to_patches
from cellvim.model.encoder import Stream, run_block
from cellvim.model.sequence import grid_layouts

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")

PUBLISHED_IMAGE_MODELS = {"tiny": 7.2e6, "small": 25.8e6, "base": 97.7e6}
"""Parameters of the published models of RGB images with 1000 classes, as printed (three digits)."""


def test_permuting_channels_with_their_names_only_reorders(encoder: ChannelEncoder, image: Tensor) -> None:
    order = [3, 0, 4, 2, 1]
    names = [STAINS[i] for i in order]
    tokens = encoder.tokens(image, STAINS)
    assert torch.equal(encoder.tokens(image[:, order], names), tokens[:, order])
    features = encoder.features(image, STAINS).unflatten(1, (5, -1))
    assert torch.equal(encoder.features(image[:, order], names).unflatten(1, (5, -1)), features[:, order])
    together = encoder.features(image, STAINS, pool="all")
    torch.testing.assert_close(encoder.features(image[:, order], names, pool="all"), together)


def test_unknown_stains_are_reordered_too(encoder: ChannelEncoder, image: Tensor) -> None:
    names = ["Phalloidin", "DNA", "Actin", "Mito", "WGA"]
    order = [2, 4, 1, 0, 3]
    tokens = encoder.tokens(image, names)
    assert torch.equal(encoder.tokens(image[:, order], [names[i] for i in order]), tokens[:, order])


def test_stains_match_ignoring_case_and_blanks_and_nothing_else(
    encoder: ChannelEncoder, image: Tensor
) -> None:
    known = encoder.tokens(image[:, :1], ["DNA"])
    assert torch.equal(encoder.tokens(image[:, :1], [" dna "]), known)
    assert not torch.allclose(encoder.tokens(image[:, :1], ["Hoechst"]), known)
    assert torch.equal(
        encoder.tokens(image[:, :1], ["Hoechst"]), encoder.tokens(image[:, :1], ["something else"])
    )


@pytest.mark.parametrize("visible", [[0], [1, 3], [0, 2, 4]])
def test_a_masked_image_that_hides_whole_channels_equals_the_others_fed_alone(
    encoder: ChannelEncoder, image: Tensor, visible: list[int]
) -> None:
    hidden = torch.ones(3, 4, 6, 5, dtype=torch.bool)
    hidden[..., visible] = False
    latent = encoder.encode_kept(to_patches(image, 8), range(5), hidden)
    alone = encoder.tokens(image[:, visible], [STAINS[i] for i in visible])
    torch.testing.assert_close(latent.view(3, 4, 6, len(visible), -1).permute(0, 3, 1, 2, 4), alone)


def test_each_sample_may_hide_other_channels(encoder: ChannelEncoder, image: Tensor) -> None:
    visible = [[0, 1], [2, 4], [1, 3]]
    hidden = torch.ones(3, 4, 6, 5, dtype=torch.bool)
    for sample, channels in enumerate(visible):
        hidden[sample, ..., channels] = False
    latent = encoder.encode_kept(to_patches(image, 8), range(5), hidden)
    for sample, channels in enumerate(visible):
        alone = encoder.tokens(image[sample : sample + 1, channels], [STAINS[i] for i in channels])
        torch.testing.assert_close(latent[sample].view(4, 6, 2, -1).permute(2, 0, 1, 3), alone[0])


def test_keeping_every_token_equals_the_dense_path(encoder: ChannelEncoder, image: Tensor) -> None:
    hidden = torch.zeros(3, 4, 6, 5, dtype=torch.bool)
    latent = encoder.encode_kept(to_patches(image, 8), range(5), hidden)
    dense = encoder.tokens(image, STAINS).permute(0, 2, 3, 1, 4)
    torch.testing.assert_close(latent.view_as(dense), dense)


def test_alternating_is_two_blocks_channel_first_then_two_spatial_first(
    settings: ModelSettings, image: Tensor
) -> None:
    alternating, channel_first = (
        ChannelEncoder(
            settings.model_copy(update={"scan_order": order, "depth": 6}),
            STAINS,
            generator=torch.Generator().manual_seed(1),
        ).double()
        for order in ("alternating", "channel-first")
    )
    after_two, after_four, after_six = (alternating.tokens(image, STAINS, layer=layer) for layer in (1, 3, 5))
    assert torch.equal(after_two, channel_first.tokens(image, STAINS, layer=1))
    for start, end, first, order in (
        (after_two, after_four, 2, "spatial-first"),
        (after_four, after_six, 4, "channel-first"),
    ):
        stream = Stream(start.permute(0, 2, 3, 1, 4).flatten(1, 3))
        for block, layout in zip(
            alternating.blocks[first:],
            grid_layouts(settings.model_copy(update={"scan_order": order}), 4, 6, 5, is_pooled=True),
            strict=False,
        ):
            stream = run_block(block, stream, layout, is_checkpointed=False)
        torch.testing.assert_close(stream.total(), end.permute(0, 2, 3, 1, 4).flatten(1, 3))
    assert not torch.allclose(after_four, channel_first.tokens(image, STAINS, layer=3))


def test_a_batch_of_one_equals_a_batch_of_many(encoder: ChannelEncoder, image: Tensor) -> None:
    together = encoder.features(image, STAINS)
    for sample in range(3):
        torch.testing.assert_close(encoder.features(image[sample : sample + 1], STAINS)[0], together[sample])


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(224, 224, (28, 28)), (250, 310, (32, 39)), (8, 8, (1, 1))]
)
def test_any_image_size(encoder: ChannelEncoder, height: int, width: int, grid: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 2, height, width, generator=generator, dtype=torch.float64)
    tokens = encoder.tokens(image, ["DNA", "Mito"])
    assert tokens.shape == (1, 2, *grid, encoder.width)
    assert tokens.isfinite().all()
    assert encoder.features(image, ["DNA", "Mito"]).shape == (1, 2 * encoder.width)


def test_features_average_tokens_and_concatenate_layers_within_each_channel(
    encoder: ChannelEncoder, image: Tensor
) -> None:
    first, last = (encoder.tokens(image, STAINS, layer=layer).mean((2, 3)) for layer in (0, 3))
    features = encoder.features(image, STAINS, layers=(0, 3))
    torch.testing.assert_close(features, torch.cat([first, last], -1).flatten(1))
    swapped = encoder.features(image, STAINS, layers=(3, 0), pool="all")
    torch.testing.assert_close(swapped, torch.cat([last.mean(1), first.mean(1)], -1))
    final, _ = encoder.norm(None, encoder.tokens(image, STAINS, layer=3))
    torch.testing.assert_close(encoder.tokens(image, STAINS), final)


def test_bad_requests_are_refused_in_words(encoder: ChannelEncoder, image: Tensor) -> None:
    with pytest.raises(InputError, match="not distinct"):
        encoder.tokens(image[:, :2], ["DNA", "dna"])
    with pytest.raises(InputError, match="smaller than one patch"):
        encoder.tokens(image[:, :1, :5], ["DNA"])
    with pytest.raises(InputError, match="5 channels, but 2 names"):
        encoder.tokens(image, ["DNA", "ER"])
    with pytest.raises(UsageError, match="blocks 0 to 3"):
        encoder.tokens(image, STAINS, layer=4)


def test_an_unknown_kernel_is_a_usage_error(settings: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "fpga")
    with pytest.raises(UsageError, match="CELLVIM_KERNEL=fpga is none of"):
        ChannelEncoder(settings, STAINS, generator=torch.Generator())


def test_patches_come_back_as_the_image() -> None:
    image = torch.arange(2 * 3 * 20 * 30.0).view(2, 3, 20, 30)
    patches = to_patches(image, 8)
    assert patches.shape == (2, 3, 4, 3, 64)
    assert torch.equal(patches[1, 0, 1, 2].view(8, 8), image[1, 2, :8, 8:16])
    assert torch.equal(from_patches(patches, 20, 30), image)


@pytest.mark.parametrize(
    ("preset", "channels", "expected"),
    [
        ("nano", 5, 533_184),
        ("tiny", 5, 6_875_904),
        ("small", 8, 25_254_528),
        ("base", 8, 96_515_328),
    ],
)
def test_parameter_counts(preset: str, channels: int, expected: int) -> None:
    settings = ModelSettings.model_validate(PRESETS[preset])  # type: ignore[index]
    with torch.device("meta"):
        encoder = ChannelEncoder(
            settings, [f"stain {i}" for i in range(channels)], generator=torch.Generator()
        )
    count = sum(parameter.numel() for parameter in encoder.parameters())
    assert count == expected
    if preset in PUBLISHED_IMAGE_MODELS:
        d = settings.width
        # An image model has no stain table, two more colours per patch, and a classifier.
        as_image_model = count - (channels + 1) * d + 2 * settings.patch_px**2 * d + 1000 * (d + 1)
        assert as_image_model == pytest.approx(PUBLISHED_IMAGE_MODELS[preset], rel=0.01)
    if preset == "small":
        eight_channels_161_classes = count - d + 161 * (d + 1)
        assert eight_channels_161_classes == pytest.approx(25.3e6, rel=0.002)
