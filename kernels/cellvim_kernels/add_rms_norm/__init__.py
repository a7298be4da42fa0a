"""The residual stream's addition and its RMSNorm, in one pass."""

from cellvim_kernels.add_rms_norm.naive import NORM_EPS, naive_add_rms_norm

__all__ = ["NORM_EPS", "naive_add_rms_norm"]
