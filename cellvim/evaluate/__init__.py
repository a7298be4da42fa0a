"""Evaluate profiles: retrieval with p-values, linear probes, maps, neighbours and the report."""

from cellvim.evaluate.stage import evaluate_tables
from cellvim.evaluate.summary import EvaluateSummary

__all__ = ["EvaluateSummary", "evaluate_tables"]
