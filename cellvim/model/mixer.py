"""One block: RMSNorm, in_proj, the pooled bidirectional mixer, out_proj, added to a float32 residual."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cellvim.config import ModelSettings
from cellvim.model.initialize import kaiming_uniform_, linear, step_bias_
from cellvim_kernels import RMS_NORM_EPS, Layout, MixerWeights, Pool, add_rms_norm, pooled_mixer

EXPANSION = 2
CONV_TAPS = 4
STEP_RANK_DIVISOR = 16
SPARED_NAMES = ("A_log", "D", "bias", "norm", "address", "mask_token", "class_token")
"""Words in the names of parameters that weight decay must not shrink."""


class Block(nn.Module):
    """Pre-norm block over a residual stream that stays in float32.

    What a block adds to the stream is added by whoever reads the stream next: addition and norm are one pass.
    """

    def __init__(self, width: int, model: ModelSettings, *, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.mixer = Mixer(width, model, depth=depth, generator=generator)

    def forward(
        self, update: Float[Tensor, "b L d"] | None, residual: Float[Tensor, "b L d"], layout: Layout
    ) -> tuple[Float[Tensor, "b L d"], Float[Tensor, "b L d"]]:
        """Run on the stream ``residual + update``; give the next update, and that sum.

        Args:
            update: What the block before this one has yet to add; None if this is the first.
            residual: The stream before that.
            layout: Order of the sequence.
        """
        normed, stream = self.norm(update, residual)
        return self.mixer(normed, layout), stream


class RMSNorm(nn.Module):
    """Add to the residual stream, divide each token by its root mean square, and scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(
        self, update: Float[Tensor, "... d"] | None, residual: Float[Tensor, "... d"]
    ) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"]]:
        """Normalise ``residual + update``; give the result, and that sum."""
        if update is None:
            return functional.rms_norm(residual, self.weight.shape, self.weight, RMS_NORM_EPS), residual
        return add_rms_norm(update, residual, self.weight)


class Mixer(nn.Module):
    """Parameters of one mixer; every tensor with a leading 2 holds the forward, then the backward direction.

    Args:
        width: Model width d; the inner width is E = 2d.
        model: State size and pooling.
        depth: Blocks of the whole stack, which out_proj's start is scaled down by.
        generator: Source of the initial weights.
    """

    def __init__(self, width: int, model: ModelSettings, *, depth: int, generator: torch.Generator) -> None:
        super().__init__()
        inner, state = EXPANSION * width, model.state_size
        rank = math.ceil(width / STEP_RANK_DIVISOR)
        self.pool: Pool = model.pool
        self.in_proj = linear(width, 2 * inner, has_bias=False)
        self.conv_weight = nn.Parameter(torch.empty(2, inner, CONV_TAPS))
        self.conv_bias = nn.Parameter(torch.empty(2, inner))
        self.x_proj = nn.Parameter(torch.empty(2, rank + 2 * state, inner))
        self.dt_weight = nn.Parameter(torch.empty(2, inner, rank))
        self.dt_bias = nn.Parameter(torch.empty(2, inner))
        self.A_log = nn.Parameter(torch.empty(2, inner, state))
        self.D = nn.Parameter(torch.ones(2, inner))
        has_norm = model.has_inner_norm
        self.norm_weight = nn.Parameter(torch.ones(inner)) if has_norm else None
        self.norm_bias = nn.Parameter(torch.zeros(inner)) if has_norm else None
        self.out_proj = linear(inner, width, has_bias=False)
        self._initialize(generator, depth)

    def _initialize(self, generator: torch.Generator, depth: int) -> None:
        _, _, rank = self.dt_weight.shape
        kaiming_uniform_(self.in_proj.weight, generator)
        kaiming_uniform_(self.out_proj.weight, generator, scale=depth**-0.5)
        conv_bound = CONV_TAPS**-0.5
        nn.init.uniform_(self.conv_weight, -conv_bound, conv_bound, generator=generator)
        nn.init.uniform_(self.conv_bias, -conv_bound, conv_bound, generator=generator)
        for direction in self.x_proj.unbind(0):
            kaiming_uniform_(direction, generator)
        nn.init.uniform_(self.dt_weight, -(rank**-0.5), rank**-0.5, generator=generator)
        step_bias_(self.dt_bias, generator)
        rates = torch.arange(1, self.A_log.shape[-1] + 1, dtype=torch.float32)
        with torch.no_grad():
            self.A_log.copy_(rates.log().expand_as(self.A_log))

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

    def forward(self, tokens: Float[Tensor, "b L d"], layout: Layout) -> Float[Tensor, "b L d"]:
        xz = self.in_proj(tokens)
        with torch.autocast(xz.device.type, enabled=False):
            gated = pooled_mixer(xz, self.weights, layout, self.pool)
        mixed: Tensor = self.out_proj(gated)
        return mixed


def weight_decay_groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into those that weight decay shrinks, and those that it must spare.

    Spared are A_log, D, norms, biases, the stain and position tables and the mask token.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_spared = any(word in part for part in name.split(".") for word in SPARED_NAMES)
        (spared if is_spared else decayed).append(parameter)
    return decayed, spared
