"""Gradients of the selective scan on a GPU: the scan in reverse, its states recomputed chunk by chunk.

The gradients of B and C are sums over channels, those of u and step sums over states. Both are dear between threads
and cheap inside one. A warp of 32 channels and 16 states therefore gives each thread a square: 4 channels by 4
states. Most of either sum is then made of fused multiply-adds, and 40 shuffles per step are left of 160.
"""

# ruff: noqa: RUF005  (Triton knows no starred tuples)

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

CHUNK = 4
"""Steps between kept states: as many as have their states and decays in registers without spilling."""
OWN = tl.constexpr(4)
"""Channels of a thread."""
LANES = tl.constexpr(8)
"""Threads across which the channels of a program lie."""
BLOCK = tl.constexpr(32)
"""Channels per program, of one warp."""
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


def selective_scan_backward(
    dy: Float[Tensor, "G b P E"],
    u: Float[Tensor, "2 b P E"],
    step: Float[Tensor, "2 b P E"],
    dt_bias: Float[Tensor, "2 E"],
    A: Float[Tensor, "2 E N"],
    B: Float[Tensor, "2 b P N"],
    C: Float[Tensor, "2 b P N"],
    starts: Float[Tensor, "2 b chunks N E"],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of `selective_scan`, bit-equal in every run.

    Args:
        dy: Gradient of y, contiguous; G is 1 if both directions have the same, else 2.
        u: As in the forward pass, like all that follow.
        step: Step size before bias and softplus.
        dt_bias: Added to `step`; its gradient is that of `step`, summed over samples and cells.
        A: Decay rates.
        B: Input projection.
        C: Output projection.
        starts: States that the forward pass kept.

    Returns:
        Gradients of u, step, A, B and C, contiguous.
    """
    _, batch, cells, width = u.shape
    state, blocks = A.shape[-1], triton.cdiv(width, BLOCK.value)
    du, dstep = torch.empty_like(u), torch.empty_like(u)
    dA = u.new_empty(batch, 2, state, width)
    dB, dC = (u.new_empty(blocks, 2, batch, cells, state) for _ in range(2))
    scan_backward_kernel[(batch, 2, blocks)](
        dy,
        u,
        step,
        dt_bias,
        A.transpose(1, 2).contiguous(),
        B,
        C,
        starts,
        du,
        dstep,
        dA,
        dB,
        dC,
        cells,
        dy.stride(0) if len(dy) == 2 else 0,
        *B.stride()[:3],
        *C.stride()[:3],
        E=width,
        N=state,
        CHUNK=CHUNK,
        num_warps=1,
        enable_fp_fusion=False,
    )
    return du, dstep, dA.sum(0).transpose(1, 2).contiguous(), dB.sum(0), dC.sum(0)


@triton.jit
@no_type_check
def softplus(x: tl.tensor) -> tl.tuple:
    """``log(1 + exp(x))`` with a relative error of a few roundings for all x, and its derivative.

    With ``t = exp(-|x|)``, log(1 + t) is ``2 atanh(t / (2 + t))``; the polynomial is atanh's, accurate to 4e-9.
    """
    t = tl.exp2(tl.abs(x) * -LOG2E)
    s = t / (t + 2.0)
    z = s * s
    series = tl.fma(z, 0.281746572717788, 0.2796141883307131)
    series = tl.fma(series, z, 0.4002485372357447)
    series = tl.fma(series, z, 0.6666631593507897)
    series = tl.fma(series, z, 2.0000000078777496)
    return tl.fma(series, s, tl.maximum(x, 0.0)), tl.where(x >= 0.0, 1.0, t) / (t + 1.0)


@triton.jit
@no_type_check
def scan_backward_kernel(
    dy: tl.tensor,
    u: tl.tensor,
    step: tl.tensor,
    dt_bias: tl.tensor,
    A: tl.tensor,
    B: tl.tensor,
    C: tl.tensor,
    starts: tl.tensor,
    du: tl.tensor,
    dstep: tl.tensor,
    dA: tl.tensor,
    dB: tl.tensor,
    dC: tl.tensor,
    cells: tl.tensor,
    dy_direction: tl.tensor,
    B_direction: tl.tensor,
    B_sample: tl.tensor,
    B_cell: tl.tensor,
    C_direction: tl.tensor,
    C_sample: tl.tensor,
    C_cell: tl.tensor,
    E: tl.constexpr,
    N: tl.constexpr,
    CHUNK: tl.constexpr,
) -> None:
    """Scan one sample, direction and block of channels from its last step to its first."""
    sample = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1).to(tl.int64)
    block = tl.program_id(2)
    row = direction * tl.num_programs(0) + sample
    chunks = tl.cdiv(cells, CHUNK)
    e = block * BLOCK + tl.arange(0, BLOCK)
    inside = e < E
    n = tl.arange(0, N)
    lane = tl.arange(0, LANES)
    first = (direction * (cells - 1)).to(tl.int32)
    way = (1 - 2 * direction).to(tl.int32)
    u += row * cells * E
    step += row * cells * E
    du += row * cells * E
    dstep += row * cells * E
    dy += direction * dy_direction + sample * cells * E
    B += direction * B_direction + sample * B_sample
    C += direction * C_direction + sample * C_sample
    starts = unaligned(starts + row * chunks * (N * E), cells)
    dA = unaligned(dA + (sample * 2 + direction) * (N * E), cells)
    dB += (block.to(tl.int64) * 2 * tl.num_programs(0) + row) * cells * N
    dC += (block.to(tl.int64) * 2 * tl.num_programs(0) + row) * cells * N
    bias = tl.load(dt_bias + direction * E + e, mask=inside, other=0.0)
    rates = load_own(unaligned(A + direction * (N * E), cells), E, N)
    dh = ()
    dA_own = ()
    for _ in tl.static_range(OWN):
        dh = dh + (tl.zeros((N, LANES), tl.float32),)
        dA_own = dA_own + (tl.zeros((N, LANES), tl.float32),)
    for back in range(chunks):
        chunk = chunks - 1 - back
        # States before each step and after the last one, channel by channel; then what each step takes to recompute.
        h = load_own(starts + chunk * (N * E), E, N)
        decays = ()
        own_deltas = ()
        own_driven = ()
        deltas = ()
        slopes = ()
        inputs = ()
        for k in tl.static_range(CHUNK):
            t = chunk * CHUNK + k
            place = first + way * tl.minimum(t, cells - 1)
            x = tl.load(step + place * E + e, mask=inside, other=0.0) + bias
            u_t = tl.load(u + place * E + e, mask=inside, other=0.0)
            delta, slope = softplus(x)
            delta = tl.where(e < tl.where(t < cells, E, 0), delta, 0.0)
            B_t = tl.load(B + place * B_cell + n)[:, None]
            own = deal(delta * LOG2E, delta * u_t)
            for c in tl.static_range(OWN):
                own_deltas = own_deltas + (own[c],)
                own_driven = own_driven + (own[OWN + c],)
                decays = decays + (tl.exp2(rates[c] * own[c]),)
                h = h + (tl.fma(h[k * OWN + c], decays[k * OWN + c], B_t * own[OWN + c]),)
            deltas = deltas + (delta,)
            slopes = slopes + (slope,)
            inputs = inputs + (u_t,)
        for k in tl.static_range(CHUNK - 1, -1, -1):
            t = chunk * CHUNK + k
            place = first + way * tl.minimum(t, cells - 1)
            is_step = e < tl.where(t < cells, E, 0)
            B_t = tl.load(B + place * B_cell + n)[:, None]
            # Past the end nothing is read out, so no gradient enters the state.
            is_row = n < tl.where(t < cells, N, 0)
            C_t = tl.load(C + place * C_cell + n, mask=is_row, other=0.0)[:, None]
            dB_t = tl.full((N, LANES), 0.0, tl.float32)
            dC_t = tl.full((N, LANES), 0.0, tl.float32)
            sums = ()
            dh_before = ()
            dA_sums = ()
            for c in tl.static_range(OWN):
                own_e = block * BLOCK + c * LANES + lane
                dy_t = tl.load(dy + place * E + own_e, mask=own_e < E, other=0.0)[None, :]
                dC_t = tl.fma(dy_t, h[(k + 1) * OWN + c], dC_t)
                whole = tl.fma(dy_t, C_t, dh[c])
                dB_t = tl.fma(own_driven[k * OWN + c], whole, dB_t)
                dh_before = dh_before + (whole * decays[k * OWN + c],)
                # Gradient of the exponent delta * A.
                kept = dh_before[c] * h[k * OWN + c]
                dA_sums = dA_sums + (tl.fma(own_deltas[k * OWN + c], kept, dA_own[c]),)
                sums = sums + (tl.sum(tl.join(whole * B_t, kept * rates[c]), axis=0),)
            dh = dh_before
            dA_own = dA_sums
            ddriven, dexponent = collect(sums)
            tl.store(du + place * E + e, deltas[k] * ddriven, mask=is_step)
            tl.store(dstep + place * E + e, slopes[k] * tl.fma(inputs[k], ddriven, dexponent), mask=is_step)
            dB_t, dC_t = tl.split(tl.sum(tl.join(dB_t, dC_t), axis=1))
            tl.store(dB + place * N + n, dB_t, mask=is_row)
            tl.store(dC + place * N + n, dC_t, mask=is_row)
    for c in tl.static_range(OWN):
        own = own_channel(c)
        tl.store(dA + n[:, None] * E + own[None, :], dA_own[c] * LN2, mask=(own < E)[None, :])


@triton.jit
@no_type_check
def unaligned(pointer: tl.tensor, cells: tl.tensor) -> tl.tensor:
    """Hide that a pointer is aligned, so that tiles are loaded and stored one element at a time.

    The widest access of a tile decides which thread owns what. Sixteen bytes of neighbouring channels each would
    scatter the states of a channel, which belong in one thread, over several.
    """
    return pointer + tl.where(cells > 0, 0, 1)


@triton.jit
@no_type_check
def load_own(source: tl.tensor, E: tl.constexpr, N: tl.constexpr) -> tl.tuple:
    """Load a (N, LANES) tile for each of a thread's own channels."""
    tiles = ()
    for c in tl.static_range(OWN):
        e = own_channel(c)
        mask = (e < E)[None, :]
        tiles = tiles + (tl.load(source + tl.arange(0, N)[:, None] * E + e[None, :], mask=mask, other=0.0),)
    return tiles


@triton.jit
@no_type_check
def own_channel(c: tl.tensor) -> tl.tensor:
    """Each thread's own channel number c."""
    return tl.program_id(2) * BLOCK + c * LANES + tl.arange(0, LANES)


@triton.jit
@no_type_check
def deal(one: tl.tensor, other: tl.tensor) -> tl.tuple:
    """Give each thread its own channels of two vectors: OWN tiles of (1, LANES) of `one`, then of `other`."""
    both = tl.permute(tl.reshape(tl.join(one, other), (2, 2, LANES, 2)), (2, 3, 0, 1))
    even, odd = tl.split(both)
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    a, e = tl.split(first)
    b, f = tl.split(second)
    c, g = tl.split(third)
    d, h = tl.split(fourth)
    return a[None, :], b[None, :], c[None, :], d[None, :], e[None, :], f[None, :], g[None, :], h[None, :]


@triton.jit
@no_type_check
def collect(own: tl.tuple) -> tl.tuple:
    """Undo `deal`, from a tile of (LANES, 2) for each own channel."""
    both = tl.join(tl.join(own[0], own[2]), tl.join(own[1], own[3]))
    return tl.split(tl.reshape(tl.permute(both, (2, 3, 0, 1)), (BLOCK, 2)))
