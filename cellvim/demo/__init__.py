"""Synthetic plates with known truth, through all four stages to a report."""
