"""Charts of the sections as Vega-Lite specifications without data.

As in `report.charts`, no name from a table enters a specification: names are texts of the data.
"""

from typing import Any

import altair as alt

from cellvim.evaluate.report.charts import INK, specification

ROW_PX = 40
"""Height of a row of a forest: a name above, an interval below it."""


def forest(x_title: str, *, domain: tuple[float, float] | None = None) -> dict[str, Any]:
    """Estimates with intervals, one row each, name above; a tick is chance, a dashed line a value for all rows.

    Datasets: `rows` (row, label, value, low, high, chance, fill, line, tooltip), `members` (row, value, tooltip), small
    marks of what a row is the mean of, and `references` (value).
    """
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=False, nice=True, padding=12)
    x = alt.X("value:Q", title=x_title, scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("row:O", axis=None)
    rows = alt.Chart(alt.NamedData("rows")).encode(y=y)
    room = alt.param(name="room", value=260)
    references = (
        alt.Chart(alt.NamedData("references"))
        .mark_rule(strokeDash=[5, 4], color=INK, opacity=0.7, aria=False)
        .encode(x=x)
    )
    names = rows.mark_text(
        align="left", baseline="bottom", dy=-9, color=INK, fontSize=12, limit=alt.expr("room"), aria=False
    ).encode(x=alt.value(0), text="label:N")
    chance = rows.mark_tick(color=INK, thickness=2, height=13, aria=False).encode(x=alt.X("chance:Q"))
    members = (
        alt.Chart(alt.NamedData("members"))
        .mark_point(filled=True, size=26, opacity=0.35, color=INK, aria=False)
        .encode(x=x, y=y, tooltip="tooltip:N")
    )
    intervals = rows.mark_rule(strokeWidth=3, aria=False).encode(
        x=alt.X("low:Q"), x2="high:Q", color=alt.Color("line:N", scale=None), tooltip="tooltip:N"
    )
    points = rows.mark_point(filled=True, size=85, strokeWidth=1.5, aria=False).encode(
        x=x,
        color=alt.Color("fill:N", scale=None),
        stroke=alt.Stroke("line:N", scale=None),
        tooltip="tooltip:N",
    )
    layers = alt.layer(references, names, chance, members, intervals, points)
    return specification(layers.add_params(room), height=ROW_PX)


def histogram() -> dict[str, Any]:
    """Two distributions over each other, and a dashed line. Datasets: `bins` (low, high, share, fill), `references`."""
    bars = (
        alt.Chart(alt.NamedData("bins"))
        .mark_bar(orient="vertical", opacity=0.6, binSpacing=0, aria=False)
        .encode(
            x=alt.X("low:Q", title="median correlation of replicates", scale=alt.Scale(zero=False)),
            x2="high:Q",
            y=alt.Y("share:Q", title="share", stack=None, axis=alt.Axis(format="%", tickCount=4)),
            color=alt.Color("fill:N", scale=None),
            tooltip="tooltip:N",
        )
    )
    line = (
        alt.Chart(alt.NamedData("references"))
        .mark_rule(strokeDash=[5, 4], color=INK, opacity=0.8, aria=False)
        .encode(x="value:Q")
    )
    return specification(alt.layer(bars, line), height=240)


def dose_panel() -> dict[str, Any]:
    """Wells of one compound against dose, their medians, and where the controls lie.

    Datasets: `wells` (dose, projection, tooltip), `medians` (dose, projection), `controls` (low, high), `active`
    (dose). The script sets `lowest` and `highest`, so that all compounds share an axis.
    """
    x = alt.X("dose:Q", title="dose, log scale", scale=alt.Scale(type="log", nice=False, padding=8))
    x = x.axis(tickCount=4, grid=False, labelOverlap=True, format="~g")
    limits = alt.Scale(domainMin=alt.expr("lowest"), domainMax=alt.expr("highest"), nice=False)
    y = alt.Y("projection:Q", title=None, scale=limits, axis=alt.Axis(tickCount=4))
    band = (
        alt.Chart(alt.NamedData("controls"))
        .mark_rect(color=INK, opacity=0.12, aria=False)
        .encode(y=alt.Y("low:Q", scale=limits), y2="high:Q")
    )
    active = (
        alt.Chart(alt.NamedData("active"))
        .mark_rule(strokeDash=[4, 3], color=INK, opacity=0.7, aria=False)
        .encode(x=x)
    )
    line = (
        alt.Chart(alt.NamedData("medians"))
        .mark_line(strokeWidth=2, color="#2a82c7", aria=False)
        .encode(x=x, y=y)
    )
    wells = (
        alt.Chart(alt.NamedData("wells"))
        .mark_point(filled=True, size=30, opacity=0.75, color="#2a82c7", aria=False)
        .encode(x=x, y=y, tooltip="tooltip:N")
    )
    layers = alt.layer(band, active, line, wells)
    limits_of_all = [alt.param(name="lowest", value=-1), alt.param(name="highest", value=2)]
    return specification(layers.add_params(*limits_of_all), height=150)


def confusion_heat() -> dict[str, Any]:
    """Share of the wells of each true label (rows) by predicted label. Dataset: `cells`, with `fill`."""
    gaps = alt.Scale(paddingInner=0.06)
    limit = alt.expr("room")
    across = alt.Axis(
        orient="top", labelAngle=-60, labelLimit=limit, labelOverlap=False, ticks=False, domain=False
    )
    down = alt.Axis(labelLimit=limit, labelOverlap=False, ticks=False, domain=False)
    cells = (
        alt.Chart(alt.NamedData("cells"))
        .mark_rect(cornerRadius=1.5, aria=False)
        .encode(
            x=alt.X("predicted:N", title="predicted", sort=None, axis=across, scale=gaps),
            y=alt.Y("label:N", title="true", sort=None, axis=down, scale=gaps),
            color=alt.Color("fill:N", scale=None),
            fillOpacity=alt.FillOpacity("opacity:Q", scale=None),
            tooltip="tooltip:N",
        )
    )
    return specification(cells.add_params(alt.param(name="room", value=90)), height=300)


def block_line() -> dict[str, Any]:
    """Mean over perturbations by block of the encoder, with intervals. Dataset: `blocks` (block, value, low, high)."""
    blocks = alt.Chart(alt.NamedData("blocks"))
    x = alt.X("block:Q", title="block of the encoder", scale=alt.Scale(zero=False, padding=14))
    x = x.axis(tickMinStep=1, format="d", grid=False)
    y = alt.Y("value:Q", title="mean normalised mAP", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5))
    line = blocks.mark_line(color="#2a82c7", strokeWidth=2, opacity=0.6, aria=False).encode(x=x, y=y)
    bars = blocks.mark_rule(strokeWidth=2, color="#2a82c7", aria=False).encode(x=x, y="low:Q", y2="high:Q")
    points = blocks.mark_point(filled=True, size=80, strokeWidth=1.5, stroke="#2a82c7", aria=False).encode(
        x=x, y=y, color=alt.Color("fill:N", scale=None), tooltip="tooltip:N"
    )
    return specification(alt.layer(line, bars, points), height=260)
