"""Stacks of blocks to be timed: cellvim's encoder without what needs more than torch, and a vision transformer.

Blocks have the parameters of `cellvim.model`, by the same names; a test holds both to the same result. They run on
a machine that has only torch, Triton and jaxtyping.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.eager import Norm
from cellvim_kernels import RMS_NORM_EPS, Grid, MixerWeights

Mixer = Callable[[Tensor, MixerWeights, Grid], Tensor]

ATTENTION_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Size:
    """Width d, blocks of the scan, state size N, and width of an attention head."""

    width: int = 384
    depth: int = 24
    state: int = 16
    head: int = 64

    @property
    def rank(self) -> int:
        return math.ceil(self.width / 16)


class Block(Protocol):
    """Takes the last block's update, the residual stream and the layout; gives its update and the stream."""

    def __call__(self, update: Tensor | None, residual: Tensor, grid: Grid) -> tuple[Tensor, Tensor]: ...


class ScanBlock(nn.Module):
    """RMSNorm, in_proj, the given mixer, out_proj."""

    def __init__(self, size: Size, mixer: Mixer, norm: Norm, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = Scale(size.width)
        self.mixer = MixerParameters(size, generator)
        self.mix, self.add_rms_norm = mixer, norm

    def forward(self, update: Tensor | None, residual: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        if update is None:
            normed = functional.rms_norm(residual, self.norm.weight.shape, self.norm.weight, RMS_NORM_EPS)
        else:
            normed, residual = self.add_rms_norm(update, residual, self.norm.weight)
        xz = self.mixer.in_proj(normed)
        with torch.autocast(xz.device.type, enabled=False):
            gated = self.mix(xz, self.mixer.weights, grid)
        return self.mixer.out_proj(gated), residual


class Scale(nn.Module):
    """The parameter of an RMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


class MixerParameters(nn.Module):
    """Parameters of one mixer, with values as at the start of a training."""

    def __init__(self, size: Size, generator: torch.Generator) -> None:
        super().__init__()
        inner, rank, state = 2 * size.width, size.rank, size.state

        def uniform(*shape: int, bound: float) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * bound)

        self.in_proj = linear(size.width, 2 * inner, generator, has_bias=False)
        self.conv_weight = uniform(2, inner, 4, bound=0.5)
        self.conv_bias = uniform(2, inner, bound=0.5)
        self.x_proj = uniform(2, rank + 2 * state, inner, bound=inner**-0.5)
        self.dt_weight = uniform(2, inner, rank, bound=rank**-0.5)
        step = torch.exp(math.log(1e-3) + torch.rand(2, inner, generator=generator) * math.log(100))
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))
        rates = torch.arange(1, state + 1, dtype=torch.float32).log()
        self.A_log = nn.Parameter(rates.expand(2, inner, -1).clone())
        self.D = nn.Parameter(torch.ones(2, inner))
        self.norm_weight = nn.Parameter(torch.ones(inner))
        self.norm_bias = nn.Parameter(torch.zeros(inner))
        self.out_proj = linear(inner, size.width, generator, has_bias=False)

    @property
    def weights(self) -> MixerWeights:
        return MixerWeights(
            self.conv_weight,
            self.conv_bias,
            self.x_proj,
            self.dt_weight,
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm_weight,
            self.norm_bias,
        )


class AttentionBlock(nn.Module):
    """Pre-norm block of a vision transformer; as many weights as two of the scan's blocks."""

    def __init__(self, size: Size, backend: SDPBackend | None, generator: torch.Generator) -> None:
        super().__init__()
        width = size.width
        self.heads, self.backend = width // size.head, backend
        self.attention_norm = nn.LayerNorm(width, eps=ATTENTION_NORM_EPS)
        self.qkv = linear(width, 3 * width, generator, has_bias=True)
        self.projection = linear(width, width, generator, has_bias=True)
        self.perceptron_norm = nn.LayerNorm(width, eps=ATTENTION_NORM_EPS)
        self.widen = linear(width, 4 * width, generator, has_bias=True)
        self.narrow = linear(4 * width, width, generator, has_bias=True)

    def forward(self, update: Tensor | None, residual: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        stream = residual if update is None else residual + update
        stream = stream + self._attend(self.attention_norm(stream))
        widened = functional.gelu(self.widen(self.perceptron_norm(stream)))
        return self.narrow(widened), stream

    def _attend(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        qkv = self.qkv(tokens).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        with nullcontext() if self.backend is None else sdpa_kernel([self.backend]):
            attended = functional.scaled_dot_product_attention(*qkv.unbind(0))
        mixed: Tensor = self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return mixed


class Stack(nn.Module):
    """Blocks over a residual stream in float32, and the RMSNorm after them.

    Args:
        blocks: The blocks.
        grids: Layouts of successive blocks, over and over.
        width: Model width d.
    """

    def __init__(self, blocks: Sequence[nn.Module], grids: Sequence[Grid], width: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = Scale(width)
        self.grids = tuple(grids)

    def forward(self, tokens: Tensor) -> Tensor:
        update, stream = None, tokens
        for number, block in enumerate(self.blocks):
            update, stream = block(update, stream, self.grids[number % len(self.grids)])
        total = stream if update is None else stream + update
        return functional.rms_norm(total, self.norm.weight.shape, self.norm.weight, RMS_NORM_EPS)

    def compile_blocks(self) -> None:
        """Compile block by block: one block's code serves all of them."""
        for block in self.blocks:
            block.compile(dynamic=False)


def grids_of(rows: int, cols: int, channels: int, *, is_pooled: bool = True) -> tuple[Grid, ...]:
    """Layouts of even and odd blocks; without pooling all are alike."""
    if not is_pooled:
        return (Grid(rows, cols, channels, is_pooled=False),)
    return Grid(rows, cols, channels, "rwc"), Grid(rows, cols, channels, "wrc")


def scan_stack(size: Size, grids: Sequence[Grid], mixer: Mixer, norm: Norm) -> Stack:
    """Make the encoder of FastVim, or of Vim if the grids are not pooled; always the same weights."""
    generator = torch.Generator().manual_seed(0)
    blocks = [ScanBlock(size, mixer, norm, generator) for _ in range(size.depth)]
    return Stack(blocks, grids, size.width)


def attention_stack(size: Size, grids: Sequence[Grid], backend: SDPBackend | None = None) -> Stack:
    """Make a vision transformer of as many weights; PyTorch chooses how to attend if not told."""
    generator = torch.Generator().manual_seed(0)
    blocks = [AttentionBlock(size, backend, generator) for _ in range(math.ceil(size.depth / 2))]
    return Stack(blocks, grids, size.width)


def linear(inputs: int, outputs: int, generator: torch.Generator, *, has_bias: bool) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
