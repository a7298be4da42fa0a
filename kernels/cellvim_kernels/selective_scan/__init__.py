"""The bidirectional selective scan over the pooled sequence."""

from cellvim_kernels.selective_scan.inputs import ScanInputs
from cellvim_kernels.selective_scan.naive import naive_selective_scan
from cellvim_kernels.selective_scan.token_major import token_major_selective_scan

__all__ = ["ScanInputs", "naive_selective_scan", "token_major_selective_scan"]
