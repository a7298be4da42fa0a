"""Both depthwise convolutions over the sequence with their SiLU, and the pooling of tokens to cells."""

from cellvim_kernels.conv_pool.naive import naive_conv_pool

__all__ = ["naive_conv_pool"]
