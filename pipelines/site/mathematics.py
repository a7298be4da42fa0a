"""Formulas as drawings inside the page: no script, no font and no server is needed to read them."""

import html
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath, text_to_path

SIZE = 100.0
"""Points that a formula is set in; the page scales it to its own letters."""
EM = 1.15 / SIZE
COMMANDS = {
    Outline.MOVETO: "M",
    Outline.LINETO: "L",
    Outline.CURVE3: "Q",
    Outline.CURVE4: "C",
    Outline.CLOSEPOLY: "Z",
}


@cache
def formula(tex: str) -> str:
    """Set formulas, one per line, in the subset of TeX that matplotlib knows.

    Returns:
        A block of HTML; each drawing has the formula's source as its label.

    Raises:
        ValueError: Matplotlib does not know a command.
    """
    lines = [_drawing(line.strip()) for line in tex.strip().splitlines()]
    return '\n<div class="formula" markdown="0">\n' + "\n".join(lines) + "\n</div>\n"


def _drawing(tex: str) -> str:
    font = FontProperties(size=SIZE, math_fontfamily="stix")
    set_large = "$" + tex.replace("\\frac", "\\dfrac") + "$"
    outline = TextPath((0, 0), set_large, prop=font)
    width, height, descent = text_to_path.get_text_width_height_descent(set_large, font, ismath=True)
    pieces = []
    for points, code in outline.iter_segments(simplify=False, curves=True):
        pairs = "" if code == Outline.CLOSEPOLY else _pairs(points)
        pieces.append(COMMANDS[code] + pairs)
    box = f"0 {-(height - descent) - 2:.0f} {width + 2:.0f} {height + 4:.0f}"
    size = f"width:{(width + 2) * EM:.3f}em;height:{(height + 4) * EM:.3f}em"
    label = html.escape(tex, quote=True)
    return (
        f'<svg role="img" aria-label="{label}" viewBox="{box}" style="{size}">'
        f'<path fill="currentColor" d="{"".join(pieces)}"/></svg>'
    )


def _pairs(points: object) -> str:
    import numpy as np

    flat = np.asarray(points, float).reshape(-1, 2)
    return " ".join(f"{x:.1f} {-y:.1f}" for x, y in flat)
