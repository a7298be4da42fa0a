"""Which doses work? The compounds that move most clearly with the dose, a table of all, and the plates' Z'."""

from typing import Any

import polars as pl

from cellvim.evaluate.report.content import SIGNIFICANT_Q, ReportContent
from cellvim.evaluate.report.doses import control_band
from cellvim.evaluate.report.section import Section
from cellvim.evaluate.report.sections.charts import dose_panel, forest
from cellvim.evaluate.report.sections.reading import (
    by_table,
    first_metrics,
    in_words,
    rounded_row,
    rows_of,
    shown,
    texts,
    values,
)
from cellvim.evaluate.report.sections.tables import Columns, table
from cellvim.evaluate.report.wording import counted, listed

MOST_DRAWN = 12
MOST_PLATES = 30
GOOD_Z_PRIME = 0.5
NUMBERS = ("trend", "p", "q", "lowest_active_dose", "ec50")


def dose_overview(content: ReportContent) -> dict[str, Any] | None:
    """Compounds, clearest trend first: wells against dose for the first ones, numbers for all; Z' of each plate."""
    found = rows_of(content, "dose")
    if found is None:
        return None
    rows = found.with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in NUMBERS if name not in found.columns
    )
    wells = rows_of(content, "dose_wells")
    metrics = first_metrics(content, "dose")
    followed = perturbation_of_each(wells, rows)
    compounds = [compound_row(row, followed) for row in clearest_first(rows).iter_rows(named=True)]
    band = control_band(wells)
    is_tested = metrics.get("doses_tested") != 0
    panels = (
        [] if wells is None else [panel(one, wells, is_tested=is_tested) for one in compounds[:MOST_DRAWN]]
    )
    panels = [one for one in panels if one["wells"]]
    rising = [one for one in compounds if one["q"] is not None and one["q"] < SIGNIFICANT_Q]
    active = [one for one in compounds if one["lowest_active_dose"] is not None]
    return {
        "compounds": len(compounds),
        "significant": len(rising),
        "active": len(active),
        "is_tested": is_tested,
        "doses_named": listed([with_unit(one) for one in active], most=5),
        "axis": str(metrics.get("axis", "")),
        "panels": panels,
        "band": band,
        "limits": limits(panels, band),
        "tables": by_table(content, "dose", "fraction_significant"),
        "table": table(
            (("Compound", "choose_as"), ("Unit", "text"), ("Doses", "whole"), ("Wells", "whole"), ("Trend", "score"),
             ("p", "probability"), ("q", "probability"), ("Lowest active dose", "number"), ("EC50", "number")),
            [[[one["compound"], one["name"]], one["unit"], one["doses"], one["wells"], *(one[key] for key in NUMBERS)]
             for one in compounds],
        ),
        **plates(content, metrics),
    }  # fmt: skip


def clearest_first(rows: pl.DataFrame) -> pl.DataFrame:
    """By q, then by trend; compounds without a test last."""
    return rows.sort(["q", "trend", "compound"], descending=[False, True, False], nulls_last=True)


def compound_row(row: dict[str, Any], followed: dict[str, str]) -> dict[str, Any]:
    compound = str(row["compound"])
    return {
        "compound": compound,
        "name": followed.get(compound, ""),
        "unit": str(row.get("unit") or ""),
        "doses": row["doses"],
        "wells": row["wells"],
        **rounded_row(row, NUMBERS),
    }


def with_unit(one: dict[str, Any]) -> str:
    return f"{one['compound']} from {one['lowest_active_dose']:g} {one['unit']}".strip()


def perturbation_of_each(wells: pl.DataFrame | None, rows: pl.DataFrame) -> dict[str, str]:
    """The perturbation to follow for a compound: its lowest active dose, else its highest dose."""
    if wells is None:
        return {}
    lowest = rows.select(pl.col("compound").cast(pl.String), "lowest_active_dose")
    dosed = wells.filter(pl.col("dose").is_not_null()).with_columns(pl.col("compound").cast(pl.String))
    joined = dosed.join(lowest, on="compound", how="left")
    best = joined.sort(
        (pl.col("dose") - pl.col("lowest_active_dose")).abs(),
        -pl.col("dose"),
        "Metadata_Perturbation",
        nulls_last=True,
    )
    first = best.group_by("compound", maintain_order=True).agg(pl.col("Metadata_Perturbation").first())
    return dict(zip(texts(first["compound"]), texts(first["Metadata_Perturbation"]), strict=True))


def panel(one: dict[str, Any], wells: pl.DataFrame, *, is_tested: bool) -> dict[str, Any]:
    """Wells of a compound and the median of each dose; doses of zero have no place on a log axis."""
    own = wells.filter(
        (pl.col("compound").cast(pl.String) == one["compound"])
        & (pl.col("dose") > 0)
        & pl.col("projection").is_finite()
    )
    medians = own.group_by("dose").agg(pl.col("projection").median()).sort("dose")
    q = "no test" if one["q"] is None else f"q {one['q']:.2g}"
    active = one["lowest_active_dose"]
    none = "no single dose shown active" if is_tested else "single doses not tested"
    finding = none if active is None else f"active from {active:g} {one['unit']}".strip()
    if one["ec50"] is not None:
        finding += f"; EC50 {one['ec50']:.3g} {one['unit']}".rstrip()
    return {
        **one,
        "finding": finding,
        "alternative": f"{one['compound']}: projection against dose, {counted(own.height, 'well')}; {finding}, {q}.",
        "wells": [
            {"plate": plate, "well": well, "name": name, "dose": dose, "projection": projection}
            for plate, well, name, dose, projection in zip(
                *(texts(own[name]) for name in ("Metadata_Plate", "Metadata_Well", "Metadata_Perturbation")),
                *(values(own[name]) for name in ("dose", "projection")),
                strict=True,
            )
        ],
        "medians": [
            {"dose": dose, "projection": projection}
            for dose, projection in zip(values(medians["dose"]), values(medians["projection"]), strict=True)
        ],
    }


def limits(panels: list[dict[str, Any]], band: dict[str, float | None] | None) -> list[float]:
    """Lowest and highest value of any panel, with a little air: all panels share an axis."""
    every = [well["projection"] for one in panels for well in one["wells"]] + list((band or {}).values())
    if not every:
        return [0.0, 1.0]
    air = 0.05 * (max(every) - min(every)) or 0.5
    return [min(every) - air, max(every) + air]


def plates(content: ReportContent, metrics: dict[str, Any]) -> dict[str, Any]:
    """Z' of each plate, worst first."""
    rows = rows_of(content, "dose_plates")
    known = (
        None if rows is None else rows.filter(pl.col("z_prime").is_finite()).sort("z_prime", "Metadata_Plate")
    )
    columns: Columns = (
        ("Plate", "text"),
        ("Z'", "score"),
        ("Negative controls", "whole"),
        ("Positive controls", "whole"),
    )
    if rows is None or known is None or known.is_empty():
        return {
            "plates": [],
            "plate_count": 0,
            "plate_alternative": "",
            "mean_z_prime": None,
            "plate_table": table(columns, []),
        }
    drawn = known.head(MOST_PLATES)
    good = known.filter(pl.col("z_prime") >= GOOD_Z_PRIME).height
    mean = shown(metrics.get("mean_z_prime"))
    order = rows.sort("z_prime", "Metadata_Plate", nulls_last=True)
    counts = [order[name].to_list() for name in ("negative_controls", "positive_controls")]
    return {
        "plates": [
            {"label": plate, "value": value}
            for plate, value in zip(texts(drawn["Metadata_Plate"]), values(drawn["z_prime"]), strict=True)
        ],
        "plate_count": known.height,
        "plate_alternative": (
            f"Z' of {counted(drawn.height, 'plate')}, worst first: {good} of {known.height} reach {GOOD_Z_PRIME:g}; "
            f"mean {in_words(mean)}."
        ),
        "mean_z_prime": mean,
        "plate_table": table(
            columns, list(zip(texts(order["Metadata_Plate"]), values(order["z_prime"]), *counts, strict=True))
        ),
    }


SECTION = Section(
    key="dose_overview",
    title_for_nav="Doses",
    template="sections/dose_overview.html.j2",
    data=dose_overview,
    scripts=("sections/tables", "sections/layers", "sections/forest", "sections/dose_overview"),
    specifications=lambda: {"dose_panel": dose_panel(), "z_prime": forest("Z'-factor", domain=None)},
    after="perturbations",
)
