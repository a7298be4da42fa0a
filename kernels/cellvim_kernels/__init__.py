"""The pooled, bidirectional mixer of FastVim: its equation, and the fast paths that are judged by it."""

from cellvim_kernels.add_rms_norm import NORM_EPS as RMS_NORM_EPS
from cellvim_kernels.dispatch import (
    UnavailableBackendError,
    UnknownBackendError,
    add_rms_norm,
    check_backend_name,
    chosen_backend,
    describe_backends,
    kernel_build,
    pooled_mixer,
)
from cellvim_kernels.layout import BackwardRows, Divisor, Grid, Kept, Layout, Order, Pool, grid_tables
from cellvim_kernels.pooled_mixer import MixerWeights, take_tokens
from cellvim_kernels.selective_scan import ScanInputs

__all__ = [
    "RMS_NORM_EPS",
    "BackwardRows",
    "Divisor",
    "Grid",
    "Kept",
    "Layout",
    "MixerWeights",
    "Order",
    "Pool",
    "ScanInputs",
    "UnavailableBackendError",
    "UnknownBackendError",
    "add_rms_norm",
    "check_backend_name",
    "chosen_backend",
    "describe_backends",
    "grid_tables",
    "kernel_build",
    "pooled_mixer",
    "take_tokens",
]
