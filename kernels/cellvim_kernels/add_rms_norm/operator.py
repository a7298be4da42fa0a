"""The fused addition and norm as an operator of PyTorch."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.stages import FusedBackend, stages_of


def fused_add_rms_norm(
    tokens: Float[Tensor, "... d"],
    residual: Float[Tensor, "... d"],
    weight: Float[Tensor, " d"],
    *,
    backend: FusedBackend,
) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... d"]]:
    """Compute what `naive_add_rms_norm` defines, with the same arguments and results.

    Raises:
        ValueError: Tokens, residual stream and weight have different shapes.
    """
    if tokens.shape != residual.shape or tokens.shape[-1:] != weight.shape or not tokens.numel():
        shapes = f"{tuple(tokens.shape)}, {tuple(residual.shape)} and {tuple(weight.shape)}"
        msg = f"tokens, residual stream and weight do not belong together: {shapes}"
        raise ValueError(msg)
    is_native = tokens.dtype == torch.float32 or (tokens.dtype == torch.bfloat16 and backend == "triton")
    given = tokens if is_native else tokens.float()
    wide = residual.float().contiguous(), weight.float().contiguous()
    normed, stream, _ = _add_rms_norm(given.contiguous(), *wide, backend)
    return normed.to(tokens.dtype), stream.to(residual.dtype)


@torch.library.custom_op("cellvim::add_rms_norm", mutates_args=())
def _add_rms_norm(
    tokens: Tensor, residual: Tensor, weight: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.cuda.device_of(tokens):
        return stages_of(backend).add_rms_norm(tokens, residual, weight)


@torch.library.custom_op("cellvim::add_rms_norm_backward", mutates_args=())
def _add_rms_norm_backward(
    dnormed: Tensor, dstream: Tensor, stream: Tensor, scale: Tensor, weight: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    with torch.cuda.device_of(stream):
        return stages_of(backend).add_rms_norm_backward(dnormed, dstream, stream, scale, weight)


@_add_rms_norm.register_fake
def _(
    tokens: Tensor,
    residual: Tensor,
    weight: Tensor,  # noqa: ARG001
    backend: str,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(tokens), torch.empty_like(residual), residual.new_empty(residual.shape[:-1])


@_add_rms_norm_backward.register_fake
def _(
    dnormed: Tensor,  # noqa: ARG001
    dstream: Tensor,
    stream: Tensor,  # noqa: ARG001
    scale: Tensor,  # noqa: ARG001
    weight: Tensor,
    backend: str,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(dstream), torch.empty_like(weight)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tokens, _, weight, ctx.backend = inputs
    _, stream, scale = output
    ctx.mark_non_differentiable(scale)
    ctx.token_type = tokens.dtype
    ctx.save_for_backward(stream, scale, weight)


def _differentiate(ctx: Any, dnormed: Tensor, dstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    dtotal, dweight = _add_rms_norm_backward(
        dnormed.contiguous(), dstream.contiguous(), *ctx.saved_tensors, ctx.backend
    )
    return dtotal.to(ctx.token_type), dtotal, dweight, None


_add_rms_norm.register_autograd(_differentiate, setup_context=_keep)
