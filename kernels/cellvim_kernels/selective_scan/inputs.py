"""What a bidirectional scan reads. Symbols as in the Mamba paper (arXiv:2312.00752)."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class ScanInputs(NamedTuple):
    """Both directions of one scan, index 0 forward and index 1 backward, each in natural order.

    Args:
        u: Input sequence.
        delta: Step size of each position, already positive (after softplus).
        A: State decay rates, all negative.
        B: Input projection, shared by every inner channel.
        C: Output projection, shared by every inner channel.
    """

    u: Float[Tensor, "2 b P E"]
    delta: Float[Tensor, "2 b P E"]
    A: Float[Tensor, "2 E N"]
    B: Float[Tensor, "2 b P N"]
    C: Float[Tensor, "2 b P N"]
