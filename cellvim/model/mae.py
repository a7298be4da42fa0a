"""The masked autoencoder: predict hidden patches, and whole hidden stains, from what is visible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cellvim.config import ModelSettings
from cellvim.model.channel_embed import TokenAddress, from_patches, reorder_channels
from cellvim.model.encoder import ChannelEncoder, Stream, run_block
from cellvim.model.initialize import kaiming_uniform_, linear, truncated_normal_
from cellvim.model.masking import Mask
from cellvim.model.mixer import Block, RMSNorm
from cellvim.model.sequence import grid_layouts, kept_ids


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What the decoder made of the visible patches.

    Args:
        loss: What training minimises.
        pixel_loss: Mean squared error over the pixels of hidden patches.
        fourier_loss: Mean absolute difference of Fourier magnitudes over hidden patches, unweighted.
        hidden: True where a patch was hidden, channels in the order of the image; the same in all channels where
            tokens show all of them.
        latent: Encoder's output for the visible tokens, in memory order (row, column, channel of the model).
        patches: Predicted pixels of all patches, channels in the model's order.
        restore: Index into the model's order of each channel of the image.
        shape_px: Height and width of the image.
    """

    loss: Float[Tensor, ""]
    pixel_loss: Float[Tensor, ""]
    fourier_loss: Float[Tensor, ""]
    hidden: Bool[Tensor, "b c rows cols"]
    latent: Float[Tensor, "b kept d"]
    patches: Float[Tensor, "b rows cols c pixels"]
    restore: tuple[int, ...]
    shape_px: tuple[int, int]

    @property
    def prediction(self) -> Float[Tensor, "b c y x"]:
        """Predicted image, put together when asked for; only hidden patches are trained."""
        return reorder_channels(from_patches(self.patches, *self.shape_px), self.restore)


class MaskedAutoencoder(nn.Module):
    """Channel-aware FastMaskVim: encoder over visible tokens, light decoder over all of them.

    Args:
        model: Sizes of encoder and decoder.
        channels: Stains that get rows of their own.
        seed: Seed of the initial weights: same seed, same bytes.

    Raises:
        UsageError: CELLVIM_KERNEL names an unknown backend.
    """

    def __init__(self, model: ModelSettings, channels: Sequence[str], *, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = ChannelEncoder(model, channels, generator=generator)
        self.decoder = Decoder(model, channels, generator=generator)

    def forward(
        self, image: Float[Tensor, "b c y x"], channels: Sequence[str], mask: Mask, fourier_weight: float
    ) -> Reconstruction:
        """Hide, encode, decode and compare.

        Args:
            image: Standardised pixels.
            channels: Stain of each channel.
            mask: From `draw_mask`, for the same batch, channels and grid. Tokens that show all channels are hidden
                where the first one is.
            fourier_weight: Weight of `fourier_loss` in `loss`.

        Raises:
            InputError: Channel names repeat, or are not those that joint tokens need, or the image is smaller than
                a patch.
            AssertionError: The mask hides unequally many tokens, or whole channels, in the samples.
        """
        arrangement = self.encoder.arrange(channels, unnamed=mask.unnamed.tolist())
        patches = self.encoder.cut(image, arrangement)
        hidden = reorder_channels(mask.hidden, arrangement.order).permute(0, 2, 3, 1)
        hidden = hidden[..., : patches.shape[3]]
        latent = self.encoder.encode_kept(patches, arrangement.rows, hidden)
        prediction = self.decoder(latent, hidden, arrangement.rows)
        side_px = self.encoder.settings.patch_px
        pixel_loss, fourier_loss = reconstruction_losses(
            prediction[hidden].view(-1, side_px**2), patches[hidden].view(-1, side_px**2)
        )
        shown = hidden.permute(0, 3, 1, 2).expand(-1, len(channels), -1, -1)
        return Reconstruction(
            loss=pixel_loss + fourier_weight * fourier_loss,
            pixel_loss=pixel_loss,
            fourier_loss=fourier_loss,
            hidden=reorder_channels(shown, arrangement.restore),
            latent=latent,
            patches=prediction.detach().reshape(*hidden.shape[:3], len(channels), -1),
            restore=arrangement.restore,
            shape_px=(image.shape[2], image.shape[3]),
        )


class Decoder(nn.Module):
    """A few blocks shared by all channels, and one linear head to the pixels of a token; the same for every backbone."""

    def __init__(self, model: ModelSettings, channels: Sequence[str], *, generator: torch.Generator) -> None:
        super().__init__()
        width = model.decoder_width
        is_joint = model.tokenization == "joint"
        stains, shown = (None, len(channels)) if is_joint else (len(channels), 1)
        self.settings = model
        self.is_checkpointed = False
        """Whether blocks are computed again on the way back instead of being remembered."""
        self.embed = linear(model.width, width, has_bias=True)
        self.mask_token = nn.Parameter(torch.empty(width))
        self.address = TokenAddress(stains, model.position_grid, width, generator=generator)
        self.blocks = nn.ModuleList(
            Block(width, model, depth=model.decoder_depth, generator=generator)
            for _ in range(model.decoder_depth)
        )
        self.norm = RMSNorm(width)
        self.head = linear(width, model.patch_px**2 * shown, has_bias=True)
        truncated_normal_(self.mask_token, generator)
        kaiming_uniform_(self.embed.weight, generator)
        truncated_normal_(self.head.weight, generator)
        nn.init.zeros_(self.embed.bias)
        nn.init.zeros_(self.head.bias)

    def forward(
        self,
        latent: Float[Tensor, "b kept d"],
        hidden: Bool[Tensor, "b rows cols T"],
        stain_rows: Sequence[int],
    ) -> Float[Tensor, "b rows cols T pixels"]:
        """Predict the pixels of every patch; a hidden one asks with mask token, position and stain."""
        batch, rows, cols, channels = hidden.shape
        kept = kept_ids(hidden)
        visible = self.embed(latent)
        visible = visible.to(torch.promote_types(visible.dtype, torch.float32))
        start = torch.arange(batch, device=kept.device).unsqueeze(1) * (rows * cols * channels)
        blank = visible.new_zeros(hidden.numel(), visible.shape[-1])
        placed = blank.index_copy(0, (kept + start).flatten(), visible.flatten(0, 1))
        asked = hidden.unsqueeze(-1) * self.mask_token
        tokens = placed.view_as(asked) + asked + self.address(rows, cols, stain_rows)
        stream = Stream(tokens.flatten(1, 3))
        layouts = grid_layouts(self.settings, rows, cols, channels, is_pooled=self.settings.is_decoder_pooled)
        for number, block in enumerate(self.blocks):
            layout = layouts[number % len(layouts)]
            stream = run_block(block, stream, layout, is_checkpointed=self.is_checkpointed)
        pixels: Tensor = self.head(stream.normed(self.norm))
        return pixels.view(batch, rows, cols, channels, -1)


def reconstruction_losses(
    prediction: Float[Tensor, "n pixels"], target: Float[Tensor, "n pixels"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Compare patches pixel by pixel, and by the magnitudes of their 2-D Fourier transforms.

    Returns:
        Mean squared error, and mean absolute difference of magnitudes (unnormalised transform).
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    prediction, target = prediction.to(dtype), target.to(dtype)
    side = math.isqrt(target.shape[-1])
    distance = (_half_spectrum(prediction, side) - _half_spectrum(target, side)).abs()
    # Real input: the other half mirrors this one, except the first and, for even sides, the last column.
    weight = torch.full((distance.shape[-1],), 2.0, dtype=dtype, device=target.device)
    if side % 2 == 0:
        weight[-1] = 1
    weight[0] = 1
    fourier = (distance * weight).sum() / target.numel()
    return (prediction - target).square().mean(), fourier


def _half_spectrum(patches: Float[Tensor, "n pixels"], side: int) -> Float[Tensor, "n side half"]:
    magnitude: Tensor = torch.fft.rfft2(patches.view(-1, side, side)).abs()
    return magnitude
