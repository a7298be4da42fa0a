"""Initial weights, always drawn from a generator that the caller passes: same seed, same bytes."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

EMBEDDING_DEVIATION = 0.02
TRUNCATED_DEVIATION = 0.87962566103423978
"""Standard deviation of a unit normal cut at two deviations."""


def truncated_normal_(
    tensor: Float[Tensor, "..."], generator: torch.Generator, *, deviation: float = EMBEDDING_DEVIATION
) -> None:
    nn.init.trunc_normal_(tensor, std=deviation, generator=generator)


def lecun_normal_(weight: Float[Tensor, "outputs inputs"], generator: torch.Generator) -> None:
    """Truncated normal whose products keep the variance of their inputs."""
    deviation = weight.shape[1] ** -0.5 / TRUNCATED_DEVIATION
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)


def kaiming_uniform_(
    weight: Float[Tensor, "outputs inputs"], generator: torch.Generator, *, scale: float = 1.0
) -> None:
    """Uniform within 1/sqrt(inputs), PyTorch's usual start of a linear layer, times `scale`."""
    bound = scale * weight.shape[1] ** -0.5
    nn.init.uniform_(weight, -bound, bound, generator=generator)


def step_bias_(
    bias: Float[Tensor, "2 E"],
    generator: torch.Generator,
    *,
    shortest: float = 1e-3,
    longest: float = 0.1,
    floor: float = 1e-4,
) -> None:
    """Inverse softplus of steps drawn log-uniformly, both directions alike.

    Source:
        Gu and Dao 2023, "Mamba", section 3.6 (arXiv:2312.00752).
    """
    share = torch.rand(bias.shape, generator=generator)
    low, high = math.log(shortest), math.log(longest)
    step = torch.exp(low + share * (high - low)).clamp(min=floor)
    with torch.no_grad():
        bias.copy_(step + torch.log(-torch.expm1(-step)))


def linear(inputs: int, outputs: int, *, has_bias: bool) -> nn.Linear:
    """Make a linear layer without touching the global random state; the caller fills it."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=has_bias)
    if not isinstance(layer, nn.Linear):
        raise TypeError(layer)
    return layer
