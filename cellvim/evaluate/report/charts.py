"""Charts as Vega-Lite specifications without data: the page's script brings the data.

No name from a table ever enters a specification, only fixed field names do, so no name can become an
expression. Text and axes are drawn in `currentColor`: the style sheet decides what that is, in light, in dark
and on paper.
"""

from typing import Any

import altair as alt

INK = "currentColor"

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_AXIS = {
    "labelColor": INK,
    "titleColor": INK,
    "domainColor": INK,
    "tickColor": INK,
    "gridColor": INK,
    "domainOpacity": 0.45,
    "tickOpacity": 0.45,
    "gridOpacity": 0.1,
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": 500,
    "labelFont": _FONT,
    "titleFont": _FONT,
}


def specifications() -> dict[str, Any]:
    """One specification per kind of chart, ready for JSON."""
    return {
        "scores": score_chart(),
        "map": map_chart(),
        "plate": plate_chart(),
        "dose_curve": dose_curve_chart(),
    }


def score_chart() -> dict[str, Any]:
    """Strength (mAP) against certainty (-log10 p), a point per perturbation, a line where q is 0.05."""
    x = alt.X("map:Q", title="mean average precision (mAP)", scale=alt.Scale(domain=[0, 1]))
    x = x.axis(tickCount=5)
    y = alt.Y("certainty:Q", title="\N{MINUS SIGN}log\N{SUBSCRIPT ONE}\N{SUBSCRIPT ZERO} p")
    y = y.scale(domainMin=0)
    points = (
        alt.Chart(alt.NamedData("points"))
        .mark_point(filled=True, strokeWidth=1.5, aria=False)
        .encode(
            x=x,
            y=y,
            size=alt.Size("size:Q", scale=None),
            color=alt.Color("fill:N", scale=None),
            stroke=alt.Stroke("line:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            opacity=alt.Opacity("opacity:Q", scale=None),
            tooltip="tooltip:N",
        )
    )
    line = (
        alt.Chart(alt.NamedData("threshold"))
        .mark_rule(strokeDash=[5, 4], color=INK, opacity=0.7, aria=False)
        .encode(y="certainty:Q")
    )
    name = line.mark_text(
        align="right", baseline="bottom", dx=-4, dy=-3, color=INK, fontSize=12, font=_FONT, aria=False
    ).encode(x=alt.value("width"), text="label:N")
    return specification(alt.layer(line, name, points), height=280)


def map_chart() -> dict[str, Any]:
    """Wells in two dimensions. Colour, shape and opacity are chosen by the script, row by row."""
    axis = alt.Axis(ticks=False, labels=False, grid=False, domain=False)
    chart = (
        alt.Chart(alt.NamedData("points"))
        .mark_point(filled=True, strokeWidth=1.2, aria=False)
        .encode(
            x=alt.X("x:Q", axis=axis, title=None, scale=alt.Scale(zero=False, nice=False, padding=10)),
            y=alt.Y("y:Q", axis=axis, title=None, scale=alt.Scale(zero=False, nice=False, padding=10)),
            color=alt.Color("fill:N", scale=None),
            stroke=alt.Stroke("line:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            opacity=alt.Opacity("opacity:Q", scale=None),
            size=alt.Size("size:Q", scale=None),
            order=alt.Order("order:Q"),
            tooltip="tooltip:N",
        )
    )
    return specification(chart, height=340)


def plate_chart() -> dict[str, Any]:
    """A plate from above. Wells without data stay an empty outline; a glyph marks the controls."""
    top, left = (
        alt.Axis(orient=side, labelAngle=0, labelOverlap=True, ticks=False, domain=False)
        for side in ("top", "left")
    )
    gaps = alt.Scale(paddingInner=0.1, paddingOuter=0.05)
    x = alt.X("column:O", title=None, axis=top, scale=gaps)
    y = alt.Y("row:O", title=None, axis=left, scale=gaps, sort=None)
    wells = alt.Chart(alt.NamedData("wells")).encode(x=x, y=y)
    outline = (
        alt.Chart(alt.NamedData("grid"))
        .mark_rect(
            filled=False,
            stroke=INK,
            strokeWidth=0.8,
            strokeDash=[2, 2],
            cornerRadius=1.5,
            aria=False,
        )
        .encode(x=x, y=y, strokeOpacity=alt.StrokeOpacity("edge:Q", scale=None))
    )
    values = wells.mark_rect(cornerRadius=1.5, aria=False).encode(
        color=alt.Color("fill:N", scale=None),
        fillOpacity=alt.FillOpacity("opacity:Q", scale=None),
        stroke=alt.Stroke("line:N", scale=None),
        strokeWidth=alt.StrokeWidth("width:Q", scale=None),
        tooltip="tooltip:N",
    )
    glyphs = wells.mark_text(fontWeight=700, fontSize=alt.expr("glyphSize"), font=_FONT, aria=False).encode(
        text="glyph:N", color=alt.Color("ink:N", scale=None), tooltip="tooltip:N"
    )
    size = alt.param(name="glyphSize", value=11)
    return specification(alt.layer(outline, values, glyphs).add_params(size), height=200)


def dose_curve_chart() -> dict[str, Any]:
    """Projection of the wells of one compound against their dose, with the controls' band and medians per dose."""
    x = alt.X("dose:Q", title="dose (logarithmic)", scale=alt.Scale(type="log"))
    x = x.axis(tickCount=5, labelOverlap=True, grid=False)
    y = alt.Y("projection:Q", title="place on the axis of effect").scale(zero=False)
    band = (
        alt.Chart(alt.NamedData("band"))
        .mark_rect(color=INK, opacity=0.12, aria=False)
        .encode(y="low:Q", y2="high:Q", tooltip="tooltip:N")
    )
    line = (
        alt.Chart(alt.NamedData("medians"))
        .mark_line(color=INK, opacity=0.6, strokeWidth=1.5, aria=False)
        .encode(x=x, y=y)
    )
    points = (
        alt.Chart(alt.NamedData("points"))
        .mark_point(filled=True, strokeWidth=1.5, size=60, aria=False)
        .encode(
            x=x,
            y=y,
            color=alt.Color("fill:N", scale=None),
            stroke=alt.Stroke("line:N", scale=None),
            shape=alt.Shape("shape:N", scale=None),
            tooltip="tooltip:N",
        )
    )
    return specification(alt.layer(band, line, points), height=200)


def specification(chart: Any, *, height: int) -> dict[str, Any]:
    """Size a chart to its box and give it the page's font and colours."""
    dressed = (
        chart.properties(width="container", height=height, background="transparent", padding=4)
        .properties(autosize=alt.AutoSizeParams(type="fit", contains="padding"))
        .configure(font=_FONT, axis=_AXIS, view={"stroke": None})
    )
    specification: dict[str, Any] = dressed.to_dict()
    return specification
