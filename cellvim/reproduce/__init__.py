"""From any result back to the commands that made it, and forward again: `cellvim reproduce`."""

from cellvim.reproduce.plan import Plan, Step, make_plan
from cellvim.reproduce.running import run_plan
from cellvim.reproduce.summary import PlanSummary, RunSummary

__all__ = ["Plan", "PlanSummary", "RunSummary", "Step", "make_plan", "run_plan"]
