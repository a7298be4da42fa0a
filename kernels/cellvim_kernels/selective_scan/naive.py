"""The selective scan as its equation, one step at a time. Slow on purpose: every fast path is judged by it."""

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.selective_scan.inputs import ScanInputs


def naive_selective_scan(
    inputs: ScanInputs, h0: Float[Tensor, "2 b E N"] | None = None
) -> tuple[Float[Tensor, "2 b P E"], Float[Tensor, "2 b E N"]]:
    r"""Run ``h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]`` and read ``y[t] = C[t] . h[t]``, both ways.

    The forward direction starts at the first position, the backward direction at the last.

    Args:
        inputs: Both directions, in natural order.
        h0: State of each direction before its first step; zeros if absent.

    Returns:
        Output sequences in natural order, and the state of each direction after its last step.

    Source:
        Gu and Dao 2023, "Mamba", Algorithm 2 (arXiv:2312.00752).
    """
    length = inputs.u.shape[2]
    outputs, ends = [], []
    for direction, steps in enumerate((range(length), reversed(range(length)))):
        u, delta, A, B, C = (tensor[direction] for tensor in inputs)
        h = u.new_zeros(u.shape[0], *A.shape) if h0 is None else h0[direction]
        reads = {}
        for t in steps:
            decay = torch.exp(delta[:, t, :, None] * A)
            h = decay * h + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
            reads[t] = (h * C[:, t, None, :]).sum(-1)
        outputs.append(torch.stack([reads[t] for t in range(length)], dim=1))
        ends.append(h)
    return torch.stack(outputs), torch.stack(ends)
