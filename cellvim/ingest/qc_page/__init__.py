"""One page per plate that shows how good its images are: PLATE.cellvim/qc.html."""

from cellvim.ingest.qc_page.page import PlateView, render_page

__all__ = ["PlateView", "render_page"]
