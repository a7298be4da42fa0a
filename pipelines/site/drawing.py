"""A few shapes that become a picture of its own: readable on white and on black, as the reader's page asks."""

import html
from collections.abc import Iterator, Sequence

LIGHT = {
    "card": "#ffffff", "ink": "#1f2328", "soft": "#57606a", "rim": "#c9d1d9", "empty": "#e4e8ec",
    "teal": "#1a8a84", "orange": "#cf6a1f", "violet": "#7557c0", "blue": "#2c6cb5", "red": "#c03546",
}  # fmt: skip
DARK = {
    "card": "#1d2028", "ink": "#e6e9ee", "soft": "#a9b1bd", "rim": "#4b5260", "empty": "#343a46",
    "teal": "#43bdb4", "orange": "#f09a55", "violet": "#a78ff0", "blue": "#74aef0", "red": "#f0707e",
}  # fmt: skip
"""Colours by name. A browser that is dark, or shows a dark page, takes these."""

Point = tuple[float, float]


class Drawing:
    """An SVG that grows from back to front; lengths in pixels.

    Args:
        width: Of the picture.
        height: Of the picture.
        title: What it shows, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def box(
        self, at: Point, size: Point, fill: str = "none", *, rim: str = "none", dashed: bool = False
    ) -> None:
        """Draw a rectangle from its top left corner."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<rect x="{at[0]:g}" y="{at[1]:g}" width="{size[0]:g}" height="{size[1]:g}" rx="2"'
            f' class="{_fill(fill)} {_stroke(rim)}"{dash}/>'
        )

    def disc(self, at: Point, radius: float, fill: str, *, rim: str = "none") -> None:
        """Draw a disc around a point."""
        classes = f"{_fill(fill)} {_stroke(rim)}"
        self._parts.append(f'<circle cx="{at[0]:g}" cy="{at[1]:g}" r="{radius:g}" class="{classes}"/>')

    def text(
        self, at: Point, words: str, *, anchor: str = "start", color: str = "ink", bold: bool = False
    ) -> None:
        """Write a line; `at` is its baseline."""
        weight = ' style="font-weight:bold"' if bold else ""
        self._parts.append(
            f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" class="{_fill(color)}"{weight}>'
            f"{html.escape(words)}</text>"
        )

    def line(
        self, points: Sequence[Point], *, color: str = "soft", arrow: bool = False, dashed: bool = False
    ) -> None:
        """Draw a line through points, with an arrow at its end if asked."""
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = f' marker-end="url(#{color})"' if arrow else ""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(f'<polyline points="{path}" class="f-none {_stroke(color)}"{end}{dash}/>')

    def grid(self, at: Point, cells: tuple[int, int], step: float, fills: Sequence[Sequence[str]]) -> None:
        """Draw rows and columns of squares, a colour each."""
        for row, column in places(*cells):
            corner = (at[0] + column * step, at[1] + row * step)
            self.box(corner, (step - 2, step - 2), fills[row][column], rim="rim")

    def svg(self) -> str:
        """Spell the picture."""
        colors = "".join(_rules(LIGHT)) + "@media (prefers-color-scheme: dark){" + "".join(_rules(DARK)) + "}"
        arrows = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
            f' orient="auto"><path d="M0 0L8 4L0 8z" class="{_fill(name)}"/></marker>'
            for name in LIGHT
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}"'
            f' width="{self.width:g}" height="{self.height:g}" role="img">\n<title>{html.escape(self.title)}</title>\n'
            f"<style>text{{font:13px system-ui,sans-serif}}.f-none{{fill:none}}{colors}</style>\n"
            f"<defs>{arrows}</defs>\n"
            f'<rect width="{self.width:g}" height="{self.height:g}" rx="6" class="f-card"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )


def places(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    """Row and column of every cell, row by row."""
    return ((row, column) for row in range(rows) for column in range(columns))


def _fill(color: str) -> str:
    return f"f-{color}"


def _stroke(color: str) -> str:
    return "" if color == "none" else f"s-{color}"


def _rules(colors: dict[str, str]) -> Iterator[str]:
    for name, value in colors.items():
        yield f".f-{name}{{fill:{value}}}.s-{name}{{stroke:{value}}}"
