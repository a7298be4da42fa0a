"""Synthetic plates with known truth, through all four stages to a report."""

from cellvim.demo.run import DemoSummary, pretrain_settings, run_demo
from cellvim.demo.synthetic import Acquisition, SyntheticPlates, write_layouts, write_plates

__all__ = [
    "Acquisition",
    "DemoSummary",
    "SyntheticPlates",
    "pretrain_settings",
    "run_demo",
    "write_layouts",
    "write_plates",
]
