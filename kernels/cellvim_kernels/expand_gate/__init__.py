"""From cells back to tokens: expansion, local path, LayerNorm and gate."""

from cellvim_kernels.expand_gate.naive import NORM_EPS, naive_expand_gate

__all__ = ["NORM_EPS", "naive_expand_gate"]
