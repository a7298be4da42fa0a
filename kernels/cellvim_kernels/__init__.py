"""The pooled, bidirectional mixer of FastVim: its equation, and the fast paths that are judged by it."""

from cellvim_kernels.dispatch import UnknownBackendError, chosen_backend, pooled_mixer
from cellvim_kernels.layout import BackwardRows, Divisor, Grid, Kept, Layout, Order, Pool, grid_tables
from cellvim_kernels.pooled_mixer import MixerWeights, take_tokens
from cellvim_kernels.selective_scan import ScanInputs

__all__ = [
    "BackwardRows",
    "Divisor",
    "Grid",
    "Kept",
    "Layout",
    "MixerWeights",
    "Order",
    "Pool",
    "ScanInputs",
    "UnknownBackendError",
    "chosen_backend",
    "grid_tables",
    "pooled_mixer",
    "take_tokens",
]
