"""Dose response: which compounds move with the dose, from which dose on, and are the plates' controls apart?"""

from cellvim.evaluate.dose.task import dose

__all__ = ["dose"]
