"""Attention over the same tokens: what a pooled scan must be compared with."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cellvim.model.initialize import linear, truncated_normal_
from cellvim_kernels import Layout

HEAD_WIDTHS = (64, 32, 16, 8)
"""Width of an attention head: the first that divides the model's width into three heads or more."""
EXPANSION = 4
NORM_EPS = 1e-6


class AttentionBlock(nn.Module):
    """Pre-norm block of a vision transformer, over a residual stream that stays in float32.

    It has the arguments of the scan's `Block`; where a token lies it knows from the token's address alone.

    Args:
        width: Model width d.
        generator: Source of the initial weights.

    Source:
        Dosovitskiy et al. 2020, "An Image is Worth 16x16 Words" (arXiv:2010.11929); over tokens of patch and
        channel: Bao et al. 2024, "Channel Vision Transformers" (arXiv:2309.16108).
    """

    def __init__(self, width: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = attention_heads(width)
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.qkv = _layer(width, 3 * width, generator)
        self.projection = _layer(width, width, generator)
        self.perceptron_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.widen = _layer(width, EXPANSION * width, generator)
        self.narrow = _layer(EXPANSION * width, width, generator)

    def forward(
        self,
        update: Float[Tensor, "b L d"] | None,
        residual: Float[Tensor, "b L d"],
        layout: Layout,  # noqa: ARG002  (same signature as the scan's block)
    ) -> tuple[Float[Tensor, "b L d"], Float[Tensor, "b L d"]]:
        stream = residual if update is None else residual + update
        stream = stream + self._attend(self.attention_norm(stream))
        widened = functional.gelu(self.widen(self.perceptron_norm(stream)))
        return self.narrow(widened), stream

    def _attend(self, tokens: Float[Tensor, "b L d"]) -> Float[Tensor, "b L d"]:
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*qkv.unbind(0))
        mixed: Tensor = self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return mixed


def attention_heads(width: int) -> int:
    """Heads of a model of this width: three at least if it can be divided so, each as wide as that allows."""
    fitting = [head for head in HEAD_WIDTHS if width % head == 0 and width // head >= 3]
    return width // fitting[0] if fitting else 1


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = linear(inputs, outputs, has_bias=True)
    truncated_normal_(layer.weight, generator)
    nn.init.zeros_(layer.bias)
    return layer
