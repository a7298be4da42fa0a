"""Both convolutions, SiLU and pooling on the CPU, in C++; what they compute is told in `naive.py`."""

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.cpp.call import call, sequence_argument
from cellvim_kernels.layout import Pool
from cellvim_kernels.tables import Tables

TAPS = 4
SUMS = 2 * TAPS + 4
"""Rows of a sample's partial sums in cpu.cpp: taps of both directions, biases, D."""


class UnsupportedTapsError(ValueError):
    """The convolution is not as wide as the kernels are written for.

    Args:
        taps: Its width.
    """

    def __init__(self, taps: int) -> None:
        self.taps = taps
        super().__init__(f"C++ kernels convolve over {TAPS} tokens, got {taps} taps")


def conv_pool(
    xz: Float[Tensor, "b L XZ"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    tables: Tables,
    pool: Pool,
) -> tuple[Float[Tensor, "2 b P E"], Tensor]:
    """Convolve, apply SiLU, and pool each cell's tokens; an empty cell is zero.

    Returns:
        Pooled cells, and how many tokens share each maximum: (2, b, P, E), empty if `pool` is not the maximum.

    Raises:
        UnsupportedTapsError: The convolution has not four taps.
    """
    batch, width = len(xz), conv_weight.shape[1]
    pooled = xz.new_empty(2, batch, tables.cells, width)
    ties = torch.empty_like(pooled) if pool == "max" else xz.new_empty(0)
    sequence = sequence_argument(tables, batch, width)
    taps = taps_by_row(conv_weight)
    threads = torch.get_num_threads()
    call("cellvim_conv_pool", (sequence, threads, int(pool == "max"), xz, taps, conv_bias, pooled, ties))
    return pooled, ties


def conv_pool_backward(
    xz: Float[Tensor, "b L XZ"],
    conv_weight: Float[Tensor, "2 E K"],
    conv_bias: Float[Tensor, "2 E"],
    D: Float[Tensor, "2 E"],
    tables: Tables,
    pool: Pool,
    pooled: Float[Tensor, "2 b P E"],
    ties: Tensor,
    dpooled: Float[Tensor, "2 b P E"],
    dmixed: Float[Tensor, "b L E"],
    dxz: Float[Tensor, "b L XZ"],
) -> tuple[Float[Tensor, "2 E K"], Float[Tensor, "2 E"], Float[Tensor, "2 E"]]:
    """Write the gradient of x into the first half of `dxz`.

    Args:
        xz: As in the forward pass, like the next four.
        conv_weight: See there.
        conv_bias: See there.
        D: Weight of the local path, through which `dmixed` reaches the convolution.
        tables: See there.
        pool: See there.
        pooled: Result of the forward pass.
        ties: Result of the forward pass.
        dpooled: Gradient of `pooled`.
        dmixed: Gradient of the mixed tokens, in the order of the sequence.
        dxz: Gradient of xz, whose first half is written here.

    Returns:
        Gradients of `conv_weight`, `conv_bias` and `D`.

    Raises:
        UnsupportedTapsError: The convolution has not four taps.
    """
    batch, width = len(xz), conv_weight.shape[1]
    sequence = sequence_argument(tables, batch, width)
    sums = xz.new_empty(batch, SUMS, width)
    given = xz, taps_by_row(conv_weight), conv_bias, D, pooled, ties, dpooled, dmixed
    threads = torch.get_num_threads()
    call("cellvim_conv_pool_backward", (sequence, threads, int(pool == "max"), *given, dxz, sums))
    total = sums.sum(0)
    dtaps, dbias, dhalves = total.split([2 * TAPS, 2, 2])
    return dtaps.view(2, TAPS, width).transpose(1, 2).contiguous(), dbias.clone(), dhalves * 0.5


def taps_by_row(conv_weight: Float[Tensor, "2 E K"]) -> Float[Tensor, "2 K E"]:
    """Lay out the taps with E contiguous.

    Raises:
        UnsupportedTapsError: There are not four.
    """
    taps = conv_weight.shape[-1]
    if taps != TAPS:
        raise UnsupportedTapsError(taps)
    return conv_weight.transpose(1, 2).contiguous()
