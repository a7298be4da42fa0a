"""Laws of the masked autoencoder: what it may see, what it is judged by, and that it learns."""

import pytest
import torch
from torch import Tensor

from cellvim.config import MaskingSettings, ModelSettings
from cellvim.model import Mask, MaskedAutoencoder, draw_channels, draw_mask, weight_decay_groups
from cellvim.model.channel_embed import to_patches
from cellvim.model.mae import reconstruction_losses

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
BF16_GRADIENT_BOUND = 0.02
"""Relative error of the whole gradient: a dozen products in a row, each rounded to 8 bits (2e-3)."""
BF16_PARAMETER_BOUND = 0.05
"""The same of a single parameter, whose gradient may be a small difference of large sums."""


def masks() -> list[Mask]:
    """One of each kind, for three samples of five channels and 4 x 6 patches."""
    drawn = [
        draw_mask(MaskingSettings(channel_steps=share), batch=3, channels=5, grid=(4, 6), seed=3, step=step)
        for share in (0.0, 1.0)
        for step in range(8)
    ]
    kinds = {mask.kind: mask for mask in drawn}
    return [kinds["patch"], kinds["channel"]]


def pixels_of(hidden: Tensor, patch_px: int) -> Tensor:
    return hidden.repeat_interleave(patch_px, 2).repeat_interleave(patch_px, 3)


@pytest.fixture(params=masks(), ids=lambda mask: mask.kind)
def mask(request: pytest.FixtureRequest) -> Mask:
    drawn: Mask = request.param
    return drawn


def test_hidden_pixels_cannot_leak_into_the_latent(
    autoencoder: MaskedAutoencoder, image: Tensor, mask: Mask
) -> None:
    encoder = autoencoder.encoder
    hidden = mask.hidden.permute(0, 2, 3, 1)
    other = torch.where(pixels_of(mask.hidden, 8), torch.full_like(image, 1e6), image)
    latents = [encoder.encode_kept(to_patches(picture, 8), range(5), hidden) for picture in (image, other)]
    assert torch.equal(*latents)
    predictions = [autoencoder(picture, STAINS, mask, 0.01).prediction for picture in (image, other)]
    assert torch.equal(*predictions)


def test_the_loss_depends_on_hidden_patches_only(
    autoencoder: MaskedAutoencoder, image: Tensor, mask: Mask
) -> None:
    result = autoencoder(image, STAINS, mask, 0.01)
    where = pixels_of(mask.hidden, 8)
    expected = (result.prediction - image)[where].square().mean()
    torch.testing.assert_close(result.pixel_loss.detach(), expected)
    torch.testing.assert_close(result.loss, result.pixel_loss + 0.01 * result.fourier_loss)
    assert torch.equal(result.hidden, mask.hidden)


def test_the_fourier_loss_is_that_of_the_whole_spectrum() -> None:
    generator = torch.Generator().manual_seed(0)
    for side in (1, 2, 5, 8):
        prediction = torch.randn(7, side * side, generator=generator, dtype=torch.float64)
        target = torch.randn(7, side * side, generator=generator, dtype=torch.float64)
        spectra = [torch.fft.fft2(patches.view(7, side, side)).abs() for patches in (prediction, target)]
        _, fourier = reconstruction_losses(prediction, target)
        torch.testing.assert_close(fourier, (spectra[0] - spectra[1]).abs().mean())
        assert reconstruction_losses(target, target)[1] == 0


def test_permuting_channels_with_names_and_mask_changes_nothing_but_order(
    autoencoder: MaskedAutoencoder, image: Tensor, mask: Mask
) -> None:
    order = [3, 0, 4, 2, 1]
    result = autoencoder(image, STAINS, mask, 0.01)
    permuted_mask = Mask(mask.hidden[:, order], mask.unnamed[order], mask.kind)
    permuted = autoencoder(image[:, order], [STAINS[i] for i in order], permuted_mask, 0.01)
    torch.testing.assert_close(permuted.loss, result.loss)
    torch.testing.assert_close(permuted.prediction, result.prediction[:, order])
    assert torch.equal(permuted.hidden, permuted_mask.hidden)


def test_a_batch_of_one_equals_a_batch_of_many(
    autoencoder: MaskedAutoencoder, image: Tensor, mask: Mask
) -> None:
    together = autoencoder(image, STAINS, mask, 0.01)
    for sample in range(3):
        here = slice(sample, sample + 1)
        alone = autoencoder(image[here], STAINS, Mask(mask.hidden[here], mask.unnamed, mask.kind), 0.01)
        torch.testing.assert_close(alone.prediction[0], together.prediction[sample])


def test_names_dropped_to_unknown_use_the_unknown_row(
    autoencoder: MaskedAutoencoder, image: Tensor, mask: Mask
) -> None:
    unnamed = torch.tensor([False, True, False, False, False])
    names = ["DNA", "ER", "RNA", "AGP", "Mito"]
    dropped = autoencoder(image, names, Mask(mask.hidden, unnamed, mask.kind), 0.01)
    names[1] = "never seen"
    stranger = autoencoder(image, names, Mask(mask.hidden, torch.zeros(5, dtype=torch.bool), mask.kind), 0.01)
    torch.testing.assert_close(dropped.loss, stranger.loss)


def test_channels_that_are_not_sampled_teach_nothing_and_all_others_learn(
    autoencoder: MaskedAutoencoder, image: Tensor
) -> None:
    settings = MaskingSettings(channel_sampling=True, name_dropout=0)
    for step in range(8):
        drawn = list(draw_channels(settings, channels=5, seed=2, step=step))
        mask = draw_mask(settings, batch=3, channels=len(drawn), grid=(4, 6), seed=2, step=step)
        autoencoder.zero_grad()
        autoencoder(image[:, drawn], [STAINS[i] for i in drawn], mask, 0.01).loss.backward()
        gradient = autoencoder.decoder.address.stain.grad
        assert gradient is not None
        assert gradient.abs().sum(1).nonzero()[:, 0].tolist() == drawn


def test_gradients_reach_every_parameter(autoencoder: MaskedAutoencoder, image: Tensor) -> None:
    for mask in masks():
        names = [*STAINS[:4], "a stain never seen"]
        autoencoder(image, names, mask, 0.01).loss.backward()
    for names in (STAINS, STAINS[::-1]):
        autoencoder(image, names, masks()[0], 0.01).loss.backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_same_seed_same_bytes(settings: ModelSettings) -> None:
    torch.manual_seed(1)
    first = MaskedAutoencoder(settings, STAINS, seed=5).state_dict()
    torch.rand(10)
    again = MaskedAutoencoder(settings, STAINS, seed=5).state_dict()
    other = MaskedAutoencoder(settings, STAINS, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_a_model_leaves_the_global_random_state_alone(settings: ModelSettings) -> None:
    before = torch.get_rng_state()
    MaskedAutoencoder(settings, STAINS, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_steps_lie_in_their_range_in_both_directions(settings: ModelSettings) -> None:
    model = MaskedAutoencoder(settings.model_copy(update={"width": 96}), STAINS, seed=0)
    for block in model.encoder.blocks:
        step = torch.nn.functional.softplus(block.mixer.dt_bias)
        assert step.shape[0] == 2
        assert ((step > 0.9e-3) & (step < 0.101)).all()
        assert torch.equal(block.mixer.A_log[1, 3].exp().round(), torch.arange(1.0, 5.0))


def test_weight_decay_spares_what_it_must(settings: ModelSettings) -> None:
    model = MaskedAutoencoder(settings, STAINS, seed=0)
    decayed, spared = weight_decay_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)].split(".")[-1] for parameter in decayed} == {
        "weight", "conv_weight", "x_proj", "dt_weight",
    }  # fmt: skip
    assert not any("norm" in names[id(parameter)] for parameter in decayed)
    last = {names[id(parameter)].split(".")[-1] for parameter in spared}
    assert last >= {
        "A_log",
        "D",
        "bias",
        "conv_bias",
        "dt_bias",
        "norm_weight",
        "stain",
        "position",
        "mask_token",
    }
    assert len(decayed) + len(spared) == len(names)


def test_a_few_steps_on_a_toy_image_lower_the_loss(settings: ModelSettings) -> None:
    model = MaskedAutoencoder(settings, STAINS[:2], seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    wave = torch.linspace(0, 12, 32).sin()
    image = torch.stack([wave[:, None] * wave, wave[:, None] + wave]).expand(4, -1, -1, -1)
    losses = []
    for step in range(40):
        mask = draw_mask(MaskingSettings(), batch=4, channels=2, grid=(4, 4), seed=0, step=step)
        loss = model(image, STAINS[:2], mask, 0.01).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_step_is_bit_equal_when_repeated(settings: ModelSettings, image: Tensor) -> None:
    model = MaskedAutoencoder(settings, STAINS, seed=0)
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(image.float(), STAINS, masks()[0], 0.01).loss.backward()
        gradients.append(
            [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        )
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_bf16_autocast_stays_close_and_keeps_the_residual_in_float32(
    settings: ModelSettings, image: Tensor
) -> None:
    model = MaskedAutoencoder(settings, STAINS, seed=0)
    exact = model(image.float(), STAINS, masks()[0], 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = model.encoder.tokens(image.float(), STAINS, layer=2)
        rough = model(image.float(), STAINS, masks()[0], 0.01)
    assert tokens.dtype == torch.float32
    assert rough.loss.dtype == torch.float32
    # bf16 keeps 8 bits: one part in 256 per product, less in the average.
    assert rough.loss.item() == pytest.approx(exact.loss.item(), rel=1e-2)


def test_gradients_under_bf16_autocast_are_finite_and_close(settings: ModelSettings, image: Tensor) -> None:
    model = MaskedAutoencoder(settings, STAINS, seed=0)
    for mask in masks():
        exact, rough = (gradients(model, image.float(), mask, is_bf16=is_bf16) for is_bf16 in (False, True))
        assert all(value.isfinite().all() for value in rough.values())
        for name, value in exact.items():
            assert (rough[name] - value).norm() < BF16_PARAMETER_BOUND * value.norm(), name
        difference = torch.cat([(rough[name] - value).flatten() for name, value in exact.items()])
        whole = torch.cat([value.flatten() for value in exact.values()])
        assert difference.norm() < BF16_GRADIENT_BOUND * whole.norm()


def gradients(model: MaskedAutoencoder, image: Tensor, mask: Mask, *, is_bf16: bool) -> dict[str, Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
        loss = model(image, STAINS, mask, 0.01).loss
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
