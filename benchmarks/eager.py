"""The block as usually written: the baseline of the benchmarks, in plain torch or on other people's kernels.

Channel-first tensors, a flipped copy for the backward direction, a convolution, a mean, two projections and a scan
per direction, repeated cells, transposed copies for odd blocks. The gate, which needs no order, stays token-major.
Types are left to PyTorch, as usual: with bf16 tokens, `D` widens what follows it to float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.mamba_parts import part
from cellvim_kernels import RMS_NORM_EPS, Grid, MixerWeights
from cellvim_kernels.expand_gate import NORM_EPS

PACKAGES = {"causal_conv1d", "mamba_ssm"}

Norm = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Parts:
    """The operations that have kernels in other packages.

    Args:
        conv_silu: Causal depthwise convolution and SiLU of (batch, E, length), with taps and bias.
        scan: u and the step before bias and softplus (batch, E, P), A, B and C (batch, N, P), the step's bias.
        add_rms_norm: Update, residual stream and scale to the normalised sum and the sum.
        sources: Package that each is from, by name of the operation.
    """

    conv_silu: Callable[[Tensor, Tensor, Tensor], Tensor]
    scan: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
    add_rms_norm: Norm
    sources: dict[str, str]

    @property
    def has_scan_kernel(self) -> bool:
        return self.scan is not torch_scan

    @property
    def is_all_kernels(self) -> bool:
        """Whether it is the composition at its best, with nothing in plain torch."""
        return set(self.sources.values()) <= PACKAGES


def eager_pooled_mixer(xz: Tensor, weights: MixerWeights, grid: Grid, parts: Parts | None = None) -> Tensor:
    """Compute what `naive_pooled_mixer` defines; mean pooling, or none, over a grid in order rwc or wrc.

    Args:
        xz: Output of in_proj (batch, length, 2E), in float32, float64 or bf16.
        weights: Parameters of both directions.
        grid: The tokens.
        parts: Whose convolution and scan; plain torch if absent.
    """
    parts = parts or PLAIN
    batch, length, _ = xz.shape
    is_rotated = grid.order == "wrc"
    if is_rotated:
        by_row = xz.view(batch, grid.rows, grid.cols, grid.channels, -1)
        xz = by_row.transpose(1, 2).reshape(batch, length, -1)
    x, z = xz.chunk(2, dim=2)
    x = x.transpose(1, 2).contiguous()
    results = []
    for direction in (0, 1):
        tokens = x if direction == 0 else x.flip(2)
        result = _direction(tokens, weights, direction, grid, parts)
        results.append(result if direction == 0 else result.flip(2))
    mixed = ((results[0] + results[1]) / 2).transpose(1, 2)
    normed = functional.layer_norm(mixed, mixed.shape[-1:], weights.norm_weight, weights.norm_bias, NORM_EPS)
    gated = (normed * functional.silu(z)).to(xz.dtype)
    if is_rotated:
        by_column = gated.view(batch, grid.cols, grid.rows, grid.channels, -1)
        gated = by_column.transpose(1, 2).reshape(batch, length, -1)
    return gated


def _direction(x: Tensor, weights: MixerWeights, direction: int, grid: Grid, parts: Parts) -> Tensor:
    """One direction over (batch, E, length), its own order already applied."""
    batch, width, length = x.shape
    local = parts.conv_silu(x, weights.conv_weight[direction], weights.conv_bias[direction])
    outer, pooled_size, inner = grid.sequence_shape
    cells = local
    if grid.is_pooled:
        cells = local.view(batch, width, outer, pooled_size, inner).mean(3).flatten(2)
    rank, state = weights.dt_weight.shape[-1], weights.A_log.shape[-1]
    projected = weights.x_proj[direction].to(x.dtype) @ cells
    low_rank, B, C = projected.split([rank, state, state], dim=1)
    step = weights.dt_weight[direction].to(x.dtype) @ low_rank
    A = -torch.exp(weights.A_log[direction])
    y = parts.scan(cells, step, A, B, C, weights.dt_bias[direction])
    if grid.is_pooled:
        by_cell = y.view(batch, width, outer, 1, inner)
        y = by_cell.expand(-1, -1, -1, pooled_size, -1).reshape(batch, width, length)
    return y + weights.D[direction][:, None] * local


def torch_conv_silu(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    taps, bias = taps[:, None].to(x.dtype), bias.to(x.dtype)
    padded = functional.conv1d(x, taps, bias, padding=taps.shape[-1] - 1, groups=x.shape[1])
    return functional.silu(padded[..., : x.shape[2]])


# Thousands of small steps would be unrolled: a compiler gets what surrounds them.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def torch_scan(u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor) -> Tensor:
    """Scan step by step; a loop that autograd records."""
    delta = functional.softplus(step + bias[:, None])
    h = A.new_zeros(len(u), *A.shape)
    reads = []
    for t in range(u.shape[2]):
        decay = torch.exp(delta[:, :, t, None] * A)
        h = decay * h + (delta[:, :, t] * u[:, :, t])[..., None] * B[:, None, :, t]
        reads.append((h @ C[:, :, t, None].to(h.dtype))[..., 0])
    return torch.stack(reads, dim=2).to(u.dtype)


def torch_add_rms_norm(update: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    stream = residual + update
    return functional.rms_norm(stream, weight.shape, weight, RMS_NORM_EPS).to(update.dtype), stream


PLAIN = Parts(
    torch_conv_silu,
    torch_scan,
    torch_add_rms_norm,
    sources=dict.fromkeys(("conv_silu", "scan", "add_rms_norm"), "torch"),
)


def kernel_parts() -> Parts:
    """Take each operation from the package that is known for it, and from plain torch where that is missing.

    mamba-ssm gives scan and norm, causal-conv1d the convolution. `sources` says what was found.
    """
    conv, conv_source = part("causal_conv1d", "causal_conv1d_fn")
    scan, scan_source = part("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
    norm, norm_source = part("mamba_ssm.ops.triton.layer_norm", "rms_norm_fn")
    return Parts(
        torch_conv_silu if conv is None else partial(_package_conv_silu, conv),
        torch_scan if scan is None else partial(_package_scan, scan),
        torch_add_rms_norm if norm is None else partial(_package_add_rms_norm, norm),
        {
            "conv_silu": _source(conv, conv_source),
            "scan": _source(scan, scan_source),
            "add_rms_norm": _source(norm, norm_source),
        },
    )


def _source(found: Callable[..., Any] | None, source: str) -> str:
    return f"torch ({source})" if found is None else source


def _package_conv_silu(function: Callable[..., Any], x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    result: Tensor = function(x, taps, bias, activation="silu")
    return result


# The scan is a C++ extension that a compiler cannot trace: what surrounds it is compiled in two parts.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _package_scan(
    function: Callable[..., Any], u: Tensor, step: Tensor, A: Tensor, B: Tensor, C: Tensor, bias: Tensor
) -> Tensor:
    result: Tensor = function(u, step, A, B, C, delta_bias=bias, delta_softplus=True)
    return result


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _package_add_rms_norm(
    function: Callable[..., Any], update: Tensor, residual: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    normed, stream = function(
        update, weight, None, residual=residual, eps=RMS_NORM_EPS, prenorm=True, residual_in_fp32=True
    )
    return normed, stream
