"""The page that answers: which perturbations are active, how sure are we, what do they look like?"""

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.page import render, write_report

__all__ = ["ReportContent", "render", "write_report"]
