"""The published masked autoencoder, FastMaskVim, with its order of patches and its loss.

Noise, mask, latent and prediction follow the grid that the sequence reads, which is transposed under `colwise`. The
target keeps the order of the image. That the loss compares the two is how the weights were trained, and is kept here.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from cellvim.errors import InputError
from cellvim.model.channel_embed import to_patches
from cellvim.model.mae import MaskedAutoencoder
from cellvim.model.published.description import Description, State
from cellvim.model.published.parameters import PublishedModel
from cellvim.model.published.translate import translate_decoder, translate_encoder
from cellvim.model.sequence import kept_ids

PIXEL_EPS = 1e-6
"""Added to the variance of a patch."""


@dataclass(frozen=True, eq=False)
class PublishedReconstruction:
    """What the masked model made of an image.

    Args:
        loss: Mean squared error over hidden patches.
        prediction: Pixels of every patch, row by row, colour last.
        mask: 1 where a patch was hidden.
        latent: Encoder's output for the patches that were not, after the final norm; row by row in the grid that the
            sequence reads, which for `colwise` is column by column in the image.
    """

    loss: Float[Tensor, ""]
    prediction: Float[Tensor, "b L pixels"]
    mask: Int[Tensor, "b L"]
    latent: Float[Tensor, "b kept d"]


class PublishedAutoencoder(PublishedModel):
    """The masked autoencoder under its published names.

    Args:
        state: Tensors by published name.
        description: What they are.
    """

    def __init__(self, state: State, description: Description) -> None:
        with torch.device("meta"):
            autoencoder = MaskedAutoencoder(description.settings, description.channel_names, seed=0)
        super().__init__(state, description, _MaskedCall(autoencoder))

    def forward(
        self, image: Float[Tensor, "b c y x"], *, noise: Float[Tensor, "b L"]
    ) -> PublishedReconstruction:
        """Hide patches, and predict them from the others.

        Args:
            image: Pixels as the model was trained on.
            noise: One number per patch; the patches of the smallest are kept.

        Raises:
            InputError: The image has other colours, or is no whole number of patches; the noise does not fit it; or
                no patch would be kept.
        """
        hidden = self._hide(image, noise)
        latent, patches = self._reconstruct(image, hidden)
        prediction = _colour_last(self._as_read(patches), self.description)
        target = _colour_last(self._cut(image).flatten(1, 2), self.description)
        if self.description.has_pixel_norm:
            target = (target - target.mean(-1, keepdim=True)) / (
                target.var(-1, keepdim=True, unbiased=True) + PIXEL_EPS
            ).sqrt()
        mask = self._as_read(hidden).long()
        error = (prediction - target).square().mean(-1)
        return PublishedReconstruction(
            loss=(error * mask).sum() / mask.sum(),
            prediction=prediction,
            mask=mask,
            latent=self._kept_as_read(latent, hidden),
        )

    def _hide(
        self, image: Float[Tensor, "b c y x"], noise: Float[Tensor, "b L"]
    ) -> Bool[Tensor, "b rows cols"]:
        batch, colours, height, width = image.shape
        if colours != self.description.channels:
            found = f"a masked model of {self.description.channels} colours was given {colours} channels"
            raise InputError(found, hint="give all colours, in the order of training")
        side = self.description.patch_px
        if height % side or width % side:
            found = f"images of {height} x {width} px are no whole number of patches of {side} px"
            raise InputError(found, hint=f"crop them to multiples of {side} px")
        rows, cols = height // side, width // side
        if noise.shape != (batch, rows * cols):
            found = f"noise of shape {tuple(noise.shape)} for {batch} images of {rows} x {cols} patches"
            raise InputError(found, hint="draw one number per image and patch, (b, L)")
        count = int(rows * cols * (1 - self.description.mask_ratio))
        if not count:
            found = f"mask_ratio {self.description.mask_ratio} keeps none of {rows} x {cols} patches"
            raise InputError(found, hint="give a larger image, or a smaller mask_ratio")
        kept = noise.argsort(dim=1)[:, :count]
        hidden = torch.ones_like(noise, dtype=torch.bool).scatter(1, kept, value=False)
        if self.description.scan_path == "rowwise":
            return hidden.view(batch, rows, cols)
        return hidden.view(batch, cols, rows).transpose(1, 2)

    def _reconstruct(
        self, image: Float[Tensor, "b c y x"], hidden: Bool[Tensor, "b rows cols"]
    ) -> tuple[Float[Tensor, "b kept d"], Float[Tensor, "b rows cols pixels"]]:
        by_name = self.by_name
        encoder = translate_encoder(by_name, self.description)
        decoder = translate_decoder(by_name, self.description)
        weights = {f"autoencoder.encoder.{name}": tensor for name, tensor in encoder.items()}
        weights |= {f"autoencoder.decoder.{name}": tensor for name, tensor in decoder.items()}
        result = self.compute(weights, self._cut(image), hidden)
        if not isinstance(result, tuple):
            raise TypeError(result)
        return result

    def _cut(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b rows cols pixels"]:
        """Patches of the image, colour by colour, as our joint tokens have them."""
        return to_patches(image, self.description.patch_px).flatten(3)

    def _as_read(self, maps: Shaped[Tensor, "b rows cols *rest"]) -> Shaped[Tensor, "b L *rest"]:
        is_transposed = self.description.scan_path == "colwise"
        return (maps.transpose(1, 2) if is_transposed else maps).flatten(1, 2)

    def _kept_as_read(
        self, latent: Float[Tensor, "b kept d"], hidden: Bool[Tensor, "b rows cols"]
    ) -> Float[Tensor, "b kept d"]:
        number = torch.arange(hidden[0].numel(), device=hidden.device).view_as(hidden[0])
        position = self._as_read(number.unsqueeze(0))[0].argsort()
        order = position[kept_ids(hidden.unsqueeze(3))].argsort(dim=1)
        return latent.gather(1, order.unsqueeze(2).expand_as(latent))


class _MaskedCall(nn.Module):
    def __init__(self, autoencoder: MaskedAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(
        self, patches: Float[Tensor, "b rows cols pixels"], hidden: Bool[Tensor, "b rows cols"]
    ) -> tuple[Float[Tensor, "b kept d"], Float[Tensor, "b rows cols pixels"]]:
        one_per_patch = hidden.unsqueeze(3)
        latent = self.autoencoder.encoder.encode_kept(patches.unsqueeze(3), (), one_per_patch)
        return latent, self.autoencoder.decoder(latent, one_per_patch, ()).squeeze(3)


def _colour_last(
    patches: Float[Tensor, "b L pixels"], description: Description
) -> Float[Tensor, "b L pixels"]:
    by_colour: Tensor = patches.unflatten(2, (description.channels, -1))
    return by_colour.transpose(2, 3).flatten(2)
