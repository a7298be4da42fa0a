"""The fused mixer as an operator of PyTorch: opaque to `torch.compile` and CUDA graphs, known to autograd.

The schema of an operator knows tensors, numbers and lists of them. Parameters travel as a list in the order of
`MixerWeights`, without the norm where there is none. A grid travels as its numbers and is looked up inside, so that
no table becomes part of a graph; kept tokens travel as the tensors of their tables.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.layout import Grid, Layout, Order, Pool, index_tables
from cellvim_kernels.pooled_mixer.fused import Saved, fused_backward, fused_forward
from cellvim_kernels.pooled_mixer.weights import MixerWeights
from cellvim_kernels.stages import FusedBackend, stages_of
from cellvim_kernels.tables import Tables

ORDERS: tuple[Order, ...] = get_args(Order)


class MismatchedTokensError(ValueError):
    """Tokens, parameters and layout do not belong together.

    Args:
        found: Shape of the tokens.
        expected: Shape that parameters and layout ask for; a batch of None may have any size.
    """

    def __init__(self, found: tuple[int, ...], expected: tuple[int | None, int, int]) -> None:
        self.found, self.expected = found, expected
        shown = ["any" if size is None else str(size) for size in expected]
        super().__init__(f"tokens are {tuple(found)}, but layout and parameters are for ({', '.join(shown)})")


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

    Raises:
        MismatchedTokensError: Tokens are not as many, or as wide, as layout and parameters say.
    """
    _check_shapes(xz, weights, layout)
    is_native = xz.dtype == torch.float32 or (xz.dtype == torch.bfloat16 and backend == "triton")
    tokens = (xz if is_native else xz.float()).contiguous()
    parameters = [each.float().contiguous() for each in weights if each is not None]
    keeps_states = torch.is_grad_enabled() and any(each.requires_grad for each in (xz, *parameters))
    described = _described(layout)
    out, *_ = _pooled_mixer(tokens, parameters, *described, pool, backend, keeps_states)
    result: Tensor = out.to(xz.dtype)
    return result


def _check_shapes(xz: Tensor, weights: MixerWeights, layout: Layout) -> None:
    batch: int | None
    if isinstance(layout, Grid):
        batch, length = None, layout.length
    else:
        batch, length = layout.sequence.shape
    width = 2 * weights.D.shape[-1]
    # Kernels write where tables say: what does not fit would be written elsewhere.
    if xz.shape[1:] != (length, width) or (batch is not None and len(xz) != batch) or not xz.numel():
        raise MismatchedTokensError(tuple(xz.shape), (batch, length, width))


@torch.library.custom_op("cellvim::pooled_mixer", mutates_args=())
def _pooled_mixer(
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],
    scale: float,
    pool: str,
    backend: str,
    keeps_states: bool,  # noqa: FBT001  (an operator's argument)
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    with _in_float32_on(xz):
        out, saved = fused_forward(
            stages_of(backend),
            xz,
            _weights(parameters),
            _tables(tables, geometry, scale, xz.device),
            _pool(pool),
            keeps_states=keeps_states,
        )
    return out, *saved


@torch.library.custom_op("cellvim::pooled_mixer_backward", mutates_args=())
def _pooled_mixer_backward(
    dout: Tensor,
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],
    scale: float,
    pool: str,
    backend: str,
    saved: list[Tensor],
) -> list[Tensor]:
    with _in_float32_on(xz):
        gradients = fused_backward(
            stages_of(backend),
            dout,
            xz,
            _weights(parameters),
            _tables(tables, geometry, scale, xz.device),
            _pool(pool),
            Saved(*saved),
        )
    return [each for each in gradients if each is not None]


@_pooled_mixer.register_fake
def _(
    xz: Tensor,
    parameters: list[Tensor],
    tables: list[Tensor],
    geometry: list[int],
    scale: float,  # noqa: ARG001
    pool: str,
    backend: str,
    keeps_states: bool,  # noqa: FBT001
) -> tuple[Tensor, ...]:
    weights = _weights(parameters)
    batch, length, double_width = xz.shape
    width = double_width // 2
    cells = tables[-1].shape[-1] if tables else _grid(geometry, 1.0).cells
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
    scale: float,  # noqa: ARG001
    pool: str,  # noqa: ARG001
    backend: str,  # noqa: ARG001
    saved: list[Tensor],  # noqa: ARG001
) -> list[Tensor]:
    return [torch.empty_like(each) for each in (xz, *parameters)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    xz, parameters, tables, *ctx.words, _ = inputs
    _, *saved = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*saved)
    ctx.save_for_backward(xz, *saved, *tables, *parameters)
    ctx.tables = len(tables)


def _differentiate(ctx: Any, dout: Tensor, *_: Tensor | None) -> tuple[Any, ...]:
    xz, *rest = ctx.saved_tensors
    count = len(Saved._fields)
    saved, tables, parameters = rest[:count], rest[count : count + ctx.tables], rest[count + ctx.tables :]
    dxz, *dparameters = _pooled_mixer_backward(dout.contiguous(), xz, parameters, tables, *ctx.words, saved)
    return dxz, dparameters, [None] * ctx.tables, None, None, None, None, None


_pooled_mixer.register_autograd(_differentiate, setup_context=_keep)


@contextmanager
def _in_float32_on(xz: Tensor) -> Iterator[None]:
    """Keep autocast out, which the way back would otherwise meet, and launch on the GPU that holds the tokens."""
    with torch.autocast(xz.device.type, enabled=False), torch.cuda.device_of(xz):
        yield


def _described(layout: Layout) -> tuple[list[Tensor], list[int], float]:
    if isinstance(layout, Grid):
        sizes = [layout.rows, layout.cols, layout.channels]
        return [], [*sizes, ORDERS.index(layout.order), int(layout.is_pooled)], layout.scale
    tables = layout.index
    tensors = [tables.sequence, tables.cell, tables.members, tables.first, tables.share]
    return tensors, [int(tables.is_raster)], 1.0


def _tables(tensors: list[Tensor], geometry: list[int], scale: float, device: torch.device) -> Tables:
    if not tensors:
        return index_tables(_grid(geometry, scale), device)
    sequence, cell, members, first, share = tensors
    return Tables(sequence, cell, members, first, share, is_raster=bool(geometry[0]))


def _grid(geometry: list[int], scale: float) -> Grid:
    rows, cols, channels, order, is_pooled = geometry
    return Grid(rows, cols, channels, ORDERS[order], bool(is_pooled), scale)


def _weights(parameters: list[Tensor]) -> MixerWeights:
    absent: list[Tensor | None] = [None] * (len(MixerWeights._fields) - len(parameters))
    return MixerWeights._make([*parameters, *absent])


def _pool(name: str) -> Pool:
    return "max" if name == "max" else "mean"
