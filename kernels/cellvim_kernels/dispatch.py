"""Which path computes the mixer: ``CELLVIM_KERNEL=auto|torch|naive``. Further backends join `BACKENDS`."""

import logging
import os
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.layout import Layout, Pool
from cellvim_kernels.pooled_mixer import MixerWeights, naive_pooled_mixer, token_major_pooled_mixer

logger = logging.getLogger(__name__)

ENVIRONMENT_KEY = "CELLVIM_KERNEL"

PooledMixer = Callable[[Tensor, MixerWeights, Layout, Pool], Tensor]

BACKENDS: dict[str, PooledMixer] = {"torch": token_major_pooled_mixer, "naive": naive_pooled_mixer}


class UnknownBackendError(ValueError):
    """CELLVIM_KERNEL names a backend that does not exist."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(f"{ENVIRONMENT_KEY}={wanted} is none of {', '.join(['auto', *BACKENDS])}")


# A backend is kernels already: the scan works on views that a compiler cannot trace.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def pooled_mixer(
    xz: Float[Tensor, "b L XZ"], weights: MixerWeights, layout: Layout, pool: Pool = "mean"
) -> Float[Tensor, "b L XZ//2"]:
    """Mix tokens on the chosen backend; `naive_pooled_mixer` defines arguments and result."""
    return BACKENDS[chosen_backend()](xz, weights, layout, pool)


def chosen_backend() -> str:
    """Name of the backend in use; it is logged once.

    Raises:
        UnknownBackendError: CELLVIM_KERNEL names none of them.
    """
    return _resolved(os.environ.get(ENVIRONMENT_KEY, "auto"))


@cache
def _resolved(wanted: str) -> str:
    chosen = "torch" if wanted == "auto" else wanted
    if chosen not in BACKENDS:
        raise UnknownBackendError(wanted)
    logger.info("kernel backend: %s (%s=%s)", chosen, ENVIRONMENT_KEY, wanted)
    return chosen
