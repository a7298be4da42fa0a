"""Published models of whole images: FastVim, FastChannelVim, and their unpooled ancestors."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cellvim.errors import InputError
from cellvim.model.channel_embed import Arrangement
from cellvim.model.encoder import ChannelEncoder, Encoded
from cellvim.model.published.description import Description, State
from cellvim.model.published.parameters import PublishedModel
from cellvim.model.published.translate import translate_encoder

ChannelIds = Sequence[int] | Int[Tensor, " c"]

SEQUENCE_AXES = {
    ("channel-first", "rowwise"): (0, 1, 2, 3, 4),
    ("channel-first", "colwise"): (0, 2, 1, 3, 4),
    ("spatial-first", "rowwise"): (0, 3, 1, 2, 4),
    ("spatial-first", "colwise"): (0, 3, 2, 1, 4),
}
"""Axes of (sample, row, column, channel, d) in the order that the first block reads them."""


class PublishedClassifier(PublishedModel):
    """An image or channel model under its published names: logits of an image, and what they are made of.

    Args:
        state: Tensors by published name.
        description: What they are.
    """

    def __init__(self, state: State, description: Description) -> None:
        with torch.device("meta"):
            encoder = ChannelEncoder(
                description.settings, description.channel_names, generator=torch.Generator()
            )
        super().__init__(state, description, _DenseCall(encoder))

    def forward(
        self, image: Float[Tensor, "b c y x"], channel_ids: ChannelIds | None = None
    ) -> Float[Tensor, "b classes"]:
        """Classify images; features where the model has no head.

        Args:
            image: Pixels as the model was trained on.
            channel_ids: Row of the channel table of each channel, none twice; the first ones if absent.

        Raises:
            InputError: The channels are not those of the model.
        """
        features = self.features(image, channel_ids)
        if not self.description.classes:
            return features
        by_name = self.by_name
        return functional.linear(features, by_name["head.weight"], by_name["head.bias"])

    def features(
        self, image: Float[Tensor, "b c y x"], channel_ids: ChannelIds | None = None
    ) -> Float[Tensor, "b d"]:
        """Average the tokens of an image, or give its class token in models that have one.

        Args:
            image: Pixels as the model was trained on.
            channel_ids: Row of the channel table of each channel, none twice; the first ones if absent.

        Raises:
            InputError: The channels are not those of the model.
        """
        encoded = self._encode(image, channel_ids)
        return encoded.maps.mean((1, 2, 3)) if encoded.class_token is None else encoded.class_token

    def tokens(
        self, image: Float[Tensor, "b c y x"], channel_ids: ChannelIds | None = None
    ) -> Float[Tensor, "b tokens d"]:
        """Give all tokens after the final norm, in the order in which the model's first block reads them.

        Args:
            image: Pixels as the model was trained on.
            channel_ids: Row of the channel table of each channel, none twice; the first ones if absent.

        Returns:
            One token per patch, or per patch and channel. Models with a class token have one more, at `L // 2`.

        Raises:
            InputError: The channels are not those of the model.
        """
        encoded = self._encode(image, channel_ids)
        axes = SEQUENCE_AXES[self.description.scan_order, self.description.scan_path]
        sequence = encoded.maps.permute(axes).flatten(1, 3)
        if encoded.class_token is None:
            return sequence
        middle = sequence.shape[1] // 2
        return torch.cat([sequence[:, :middle], encoded.class_token[:, None], sequence[:, middle:]], dim=1)

    def _encode(self, image: Tensor, channel_ids: ChannelIds | None) -> Encoded:
        rows = self._stain_rows(image.shape[1], channel_ids)
        translated = translate_encoder(self.by_name, self.description)
        by_name = {f"encoder.{name}": tensor for name, tensor in translated.items()}
        encoded = self.compute(by_name, image, rows)
        if not isinstance(encoded, Encoded):
            raise TypeError(encoded)
        return encoded

    def _stain_rows(self, channels: int, channel_ids: ChannelIds | None) -> tuple[int, ...]:
        table = self.description.channels
        if self.description.kind == "image":
            if channel_ids is not None or channels != table:
                found = f"an image model of {table} colours was given {channels} channels, or ids for them"
                raise InputError(found, hint="give all colours, and no channel_ids")
            return ()
        rows = tuple(range(channels)) if channel_ids is None else tuple(int(row) for row in channel_ids)
        if len(rows) != channels or not all(0 <= row < table for row in rows):
            found = f"channel_ids {rows} do not address {channels} channels in a table of {table}"
            raise InputError(found, hint="give one id per channel of the image, counted from 0")
        if len(set(rows)) < len(rows):
            found = f"channel_ids {rows} name a row of the table twice"
            raise InputError(found, hint="give each channel of the image a row of its own")
        return rows


class _DenseCall(nn.Module):
    def __init__(self, encoder: ChannelEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Float[Tensor, "b c y x"], rows: tuple[int, ...]) -> Encoded:
        in_order = Arrangement(rows=rows, order=tuple(range(image.shape[1])))
        return self.encoder.encode_grid(self.encoder.cut(image, in_order), rows)[0]
