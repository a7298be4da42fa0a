"""Which path computes: ``CELLVIM_KERNEL=auto|triton|cpp|torch|mamba|naive``.

`auto` takes the fused path of the device (Triton on an NVIDIA GPU, C++ on a CPU) where it works, else plain torch.
Before a fused path is used it computes a small example, which must agree with plain torch: a compiler that fails or
miscompiles shows here. `auto` then goes on with plain torch, and says so once. A path that is named must be there and
work.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cellvim_kernels import availability
from cellvim_kernels.add_rms_norm import NORM_EPS
from cellvim_kernels.add_rms_norm.operator import fused_add_rms_norm
from cellvim_kernels.layout import Layout, Pool
from cellvim_kernels.pooled_mixer import MixerWeights, naive_pooled_mixer, token_major_pooled_mixer
from cellvim_kernels.pooled_mixer.operator import fused_pooled_mixer
from cellvim_kernels.selective_scan.mamba import mamba_selective_scan
from cellvim_kernels.stages import FUSED, FusedBackend
from cellvim_kernels.trial import try_out

logger = logging.getLogger(__name__)

ENVIRONMENT_KEY = "CELLVIM_KERNEL"
BACKENDS = (*FUSED, "torch", "mamba", "naive")
AUTOMATIC: dict[str, FusedBackend] = {"cuda": "triton", "cpu": "cpp"}
"""What `auto` prefers to plain torch, by type of device."""

Choice = TypeVar("Choice", bound=Callable[..., object])

MOST_ELEMENTS = 2**31
"""Numbers of a sample's longest tensor that fused paths can count."""


def _constant_for_compilers(function: Choice) -> Choice:
    """Mark as `torch.compiler.assume_constant_result` does, which would load the compiler: 2.5 s for every command."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class UnknownBackendError(ValueError):
    """CELLVIM_KERNEL names a backend that does not exist."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(f"{ENVIRONMENT_KEY}={wanted} is none of {', '.join(['auto', *BACKENDS])}")


class UnavailableBackendError(RuntimeError):
    """CELLVIM_KERNEL names a backend that this machine or device has not, or that does not work.

    Args:
        wanted: The backend.
        reason: What is missing.
    """

    def __init__(self, wanted: str, reason: str) -> None:
        self.wanted, self.reason = wanted, reason
        super().__init__(f"{ENVIRONMENT_KEY}={wanted}, but {reason}")


@dataclass(frozen=True)
class Backends:
    """What computes on a device.

    Args:
        chosen: Name of the backend in use.
        failure: Why the one that would be in use is not, by its name.
    """

    chosen: str
    failure: dict[str, str]

    def state(self, name: str, device_type: str) -> str:
        """Say of one backend whether it is in use, could be, or why not."""
        if name == self.chosen:
            return "in use"
        reason = self.failure.get(name) or availability.why_absent(name, device_type)
        return f"not available: {reason}" if reason else "available"


def pooled_mixer(
    xz: Float[Tensor, "b L XZ"], weights: MixerWeights, layout: Layout, pool: Pool = "mean"
) -> Float[Tensor, "b L XZ//2"]:
    """Mix tokens on the chosen backend; `naive_pooled_mixer` defines arguments and result.

    Raises:
        UnknownBackendError: CELLVIM_KERNEL names none of them.
        UnavailableBackendError: It names one that is not there.
    """
    fused = _fused_backend(xz)
    states, taps = weights.A_log.shape[-1], weights.conv_weight.shape[-1]
    # Within a sample, Triton kernels count in 32 bits.
    is_short = xz.shape[1] * xz.shape[2] * max(1, states // 8) < MOST_ELEMENTS
    if fused is not None and is_short and _can_take(fused, states, taps):
        return fused_pooled_mixer(xz, weights, layout, pool, backend=fused)
    mixed: Tensor = _unfused_pooled_mixer(xz, weights, layout, pool)
    return mixed


def add_rms_norm(
    tokens: Float[Tensor, "... d"], residual: Float[Tensor, "... d"], weight: Float[Tensor, " d"]
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"]]:
    """Add `tokens` to the residual stream and normalise the sum; `naive_add_rms_norm` defines it.

    Raises:
        UnknownBackendError: CELLVIM_KERNEL names none of them.
        UnavailableBackendError: It names one that is not there.
    """
    fused = _fused_backend(residual)
    if fused is not None:
        return fused_add_rms_norm(tokens, residual, weight, backend=fused)
    stream = residual + tokens
    return functional.rms_norm(stream, weight.shape, weight, NORM_EPS).to(tokens.dtype), stream


def check_backend_name() -> None:
    """Refuse a misspelled CELLVIM_KERNEL before anything is computed.

    Raises:
        UnknownBackendError: CELLVIM_KERNEL names none of them.
    """
    wanted = _wanted()
    if wanted not in ("auto", *BACKENDS):
        raise UnknownBackendError(wanted)


def chosen_backend(device_type: str = "cpu", states: int | None = None) -> str:
    """Name of the backend in use on a device; it is logged once.

    Args:
        device_type: As in `torch.device.type`.
        states: State size N of the model that is to be computed; any that every backend takes if absent.

    Raises:
        UnknownBackendError: CELLVIM_KERNEL names none of them.
        UnavailableBackendError: It names one that is not there.
    """
    chosen = _resolved(_wanted(), device_type).chosen
    is_beyond = states is not None and availability.why_beyond(chosen, states, availability.TAPS) is not None
    return "torch" if is_beyond else chosen


def kernel_build(device_type: str = "cpu", states: int | None = None) -> str:
    """Name of the backend with what its last bits depend on: the compiled library, or Triton's version.

    Args:
        device_type: See `chosen_backend`.
        states: See `chosen_backend`.
    """
    chosen = chosen_backend(device_type, states)
    build = availability.build_of(chosen)
    return f"{chosen} {build}" if build else chosen


def describe_backends(device_type: str) -> dict[str, str]:
    """Say of each backend whether it is in use on a device, and why not the rest; and what is wrong, if anything is."""
    try:
        resolved = _resolved(_wanted(), device_type)
    except (UnknownBackendError, UnavailableBackendError) as error:
        resolved = Backends(chosen=f"none: {error}", failure={})
    states = {name: resolved.state(name, device_type) for name in BACKENDS}
    return {"chosen": resolved.chosen, **states}


def _wanted() -> str:
    return os.environ.get(ENVIRONMENT_KEY) or "auto"


def _fused_backend(tokens: Tensor) -> FusedBackend | None:
    chosen = _constant_choice(tokens.device.type)
    if tokens.dtype == torch.float64:
        # Fused paths compute in float32; who asks for float64 wants its digits.
        return None
    return _as_fused(chosen)


@_constant_for_compilers
def _can_take(backend: FusedBackend, states: int, taps: int) -> bool:
    return not _told_limit(backend, states, taps)


@cache
def _told_limit(backend: FusedBackend, states: int, taps: int) -> str | None:
    limit = availability.why_beyond(backend, states, taps)
    if limit is not None:
        logger.warning("plain torch computes this model: %s", limit)
    return limit


# The scan of the torch path works on views that a compiler cannot trace. `torch.compiler.disable` would load the compiler
# when this module is imported, this one when the function is first called.
@torch._disable_dynamo  # type: ignore[attr-defined]
def _unfused_pooled_mixer(xz: Tensor, weights: MixerWeights, layout: Layout, pool: Pool) -> Tensor:
    backend = chosen_backend(xz.device.type)
    if backend == "naive":
        return naive_pooled_mixer(xz, weights, layout, pool)
    if backend == "mamba":
        return token_major_pooled_mixer(xz, weights, layout, pool, scan=mamba_selective_scan)
    return token_major_pooled_mixer(xz, weights, layout, pool)


@_constant_for_compilers
def _constant_choice(device_type: str) -> str:
    return chosen_backend(device_type)


@cache
def _resolved(wanted: str, device_type: str) -> Backends:
    check_backend_name()
    if wanted == "auto":
        preferred = AUTOMATIC.get(device_type, "torch")
        reason = availability.why_absent(preferred, device_type)
    else:
        preferred = wanted
        reason = availability.why_absent(wanted, device_type)
        if reason is not None:
            raise UnavailableBackendError(wanted, reason)
    if reason is None:
        reason = _failure(preferred, device_type)
        if reason is not None and wanted != "auto":
            raise UnavailableBackendError(wanted, f"its kernels do not work here: {reason}")
        if reason is not None:
            logger.warning("%s kernels do not work here, plain torch goes on: %s", preferred, reason)
    chosen = preferred if reason is None else "torch"
    why = f"; {preferred}: {reason}" if reason is not None else ""
    logger.info("kernel backend on %s: %s (%s=%s%s)", device_type, chosen, ENVIRONMENT_KEY, wanted, why)
    return Backends(chosen, {} if reason is None else {preferred: reason})


def _failure(backend: str, device_type: str) -> str | None:
    fused = _as_fused(backend)
    if fused is None or (fused == "triton" and availability.is_interpreted()):
        return None
    try:
        try_out(fused, torch.empty(0, device=device_type).device)
    except Exception as error:  # noqa: BLE001 - compilers fail in ways of their own; the caller tells it
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def _as_fused(backend: str) -> FusedBackend | None:
    return next((name for name in FUSED if name == backend), None)
