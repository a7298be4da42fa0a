"""The fused mixer as an operator of PyTorch: opaque to `torch.compile` and CUDA graphs, known to autograd.

The schema of an operator knows tensors, numbers and lists of them. Parameters and tables travel as lists in the
order of `MixerWeights` (without the norm, where there is none) and `Tables`.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.layout import Layout, Pool, index_tables
from cellvim_kernels.pooled_mixer.fused import Kept, fused_backward, fused_forward
from cellvim_kernels.pooled_mixer.weights import MixerWeights
from cellvim_kernels.stages import FusedBackend, stages_of
from cellvim_kernels.tables import Tables


def fused_pooled_mixer(
    xz: Float[Tensor, "b L XZ"],
    weights: MixerWeights,
    layout: Layout,
    pool: Pool = "mean",
    *,
    backend: FusedBackend,
) -> Float[Tensor, "b L XZ//2"]:
    """Compute what `naive_pooled_mixer` defines, with the same arguments and result.

    Inside, all is float32. Triton reads and writes tokens in float32 or bf16; C++ in float32 alone, so bf16
    tokens are widened for it.
    """
    is_native = xz.dtype == torch.float32 or (xz.dtype == torch.bfloat16 and backend == "triton")
    tokens = (xz if is_native else xz.float()).contiguous()
    parameters = [each.float().contiguous() for each in weights if each is not None]
    tables = index_tables(layout, xz.device)
    keeps_states = torch.is_grad_enabled() and any(each.requires_grad for each in (xz, *parameters))
    geometry = [int(tables.is_raster), tables.row_tokens, tables.interleave]
    out, *_ = _pooled_mixer(tokens, parameters, _tensors(tables), geometry, pool, backend, keeps_states)
    result: Tensor = out.to(xz.dtype)
    return result


@torch.library.custom_op("cellvim::pooled_mixer", mutates_args=())
def _pooled_mixer(
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],
    pool: str,
    backend: str,
    keeps_states: bool,  # noqa: FBT001  (an operator's argument)
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    out, kept = fused_forward(
        stages_of(backend),
        xz,
        _weights(parameters),
        _tables(tables, geometry),
        _pool(pool),
        keeps_states=keeps_states,
    )
    return out, *kept


@torch.library.custom_op("cellvim::pooled_mixer_backward", mutates_args=())
def _pooled_mixer_backward(
    dout: Tensor,
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],
    pool: str,
    backend: str,
    kept: list[Tensor],
) -> list[Tensor]:
    gradients = fused_backward(
        stages_of(backend),
        dout,
        xz,
        _weights(parameters),
        _tables(tables, geometry),
        _pool(pool),
        Kept(*kept),
    )
    return [each for each in gradients if each is not None]


@_pooled_mixer.register_fake
def _(
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],  # noqa: ARG001
    pool: str,
    backend: str,
    keeps_states: bool,  # noqa: FBT001
) -> tuple[Tensor, ...]:
    weights = _weights(parameters)
    batch, length, double_width = xz.shape
    width, cells = double_width // 2, tables[-1].shape[-1]
    _, projections, _ = weights.x_proj.shape
    _, _, state = weights.A_log.shape
    chunks = -(-cells // stages_of(backend).chunk)
    by_cell = 2, batch, cells, width

    def empty(*shape: int | torch.SymInt) -> Tensor:
        return xz.new_empty(shape, dtype=torch.float32)

    return (
        xz.new_empty(batch, length, width),
        empty(*by_cell),
        empty(*by_cell) if pool == "max" else empty(0),
        empty(2, batch, cells, projections),
        empty(*by_cell),
        empty(*by_cell),
        empty(2, batch, chunks, state, width) if keeps_states else empty(0),
    )


@_pooled_mixer_backward.register_fake
def _(
    dout: Tensor,  # noqa: ARG001
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],  # noqa: ARG001
    geometry: list[int],  # noqa: ARG001
    pool: str,  # noqa: ARG001
    backend: str,  # noqa: ARG001
    kept: list[Tensor],  # noqa: ARG001
) -> list[Tensor]:
    return [torch.empty_like(each) for each in (xz, *parameters)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    xz, parameters, tables, geometry, pool, backend, _ = inputs
    _, *kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*kept)
    ctx.save_for_backward(xz, *parameters, *tables, *kept)
    ctx.geometry, ctx.pool, ctx.backend = geometry, pool, backend


def _differentiate(ctx: Any, dout: Tensor, *_: Tensor | None) -> tuple[Any, ...]:
    xz, *saved = ctx.saved_tensors
    kept, tables = saved[-KEPT:], saved[-KEPT - TABLES : -KEPT]
    parameters = saved[: -KEPT - TABLES]
    dxz, *dparameters = _pooled_mixer_backward(
        dout.contiguous(), xz, parameters, tables, ctx.geometry, ctx.pool, ctx.backend, kept
    )
    return dxz, dparameters, [None] * TABLES, None, None, None, None


_pooled_mixer.register_autograd(_differentiate, setup_context=_keep)

KEPT = len(Kept._fields)
TABLES = 5


def _tensors(tables: Tables) -> list[Tensor]:
    return [tables.sequence, tables.cell, tables.members, tables.first, tables.share]


def _tables(tensors: list[Tensor], geometry: list[int]) -> Tables:
    sequence, cell, members, first, share = tensors
    is_raster, row_tokens, interleave = geometry
    return Tables(sequence, cell, members, first, share, bool(is_raster), row_tokens, interleave)


def _weights(parameters: list[Tensor]) -> MixerWeights:
    absent: list[Tensor | None] = [None] * (len(MixerWeights._fields) - len(parameters))
    return MixerWeights._make([*parameters, *absent])


def _pool(name: str) -> Pool:
    return "max" if name == "max" else "mean"
