"""The task `dose`: tables per compound, per well, per dose and per plate, and the headline."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float64, Int
from numpy import ndarray

from cellvim.evaluate.dose.activity import active_doses
from cellvim.evaluate.dose.axis import control_separation, is_positive, places_on_axis, plate_origins
from cellvim.evaluate.dose.curve import fit_curve
from cellvim.evaluate.dose.series import dosed_wells
from cellvim.evaluate.dose.trend import Trend, trend_along_axis, trend_to_highest_dose
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval_tasks import SIGNIFICANT_Q
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import benjamini_hochberg
from cellvim.profiles.schema import CONTROL_TYPE, PERTURBATION, PLATE, WELL
from cellvim.statistics import mean_with_interval

POSITIVE_AXIS, HIGHEST_AXIS = "positive control", "highest dose"
NO_DOSES = "no compound has two doses: pass --dose with a column of numbers, or name perturbations like 'drug@0.5 uM'"
NO_CONTROLS = "the table has no negative controls, from which the axis to an effect begins"
CURVE = ("ec50", "ec50_low", "ec50_high", "slope", "bottom", "top")
MOST_NAMED = 5


def dose(screen: Screen) -> TaskResult:
    """Say which compounds move with the dose, from which dose on they are active, and how far controls are apart.

    Each well is placed on the axis from negative (0) to positive controls (1) of its plate (see `places_on_axis`), or, in
    a table without positive controls, to the highest dose of its compound (see `trend_to_highest_dose`). Trends are
    tested one-sided: places rise with the dose. Positive controls make the axis and do not count for the trend, also
    where they are a dose of a compound.

    Returns:
        One row per compound with two doses or more; `wells` and `plates`; and `doses`, each with its activity.
    """
    dosed = dosed_wells(screen)
    dosed = dosed.filter(pl.col("dose").n_unique().over("compound") > 1)
    if dosed.is_empty():
        return TaskResult.not_done("dose", NO_DOSES)
    if not (screen.wells.is_control & screen.wells.takes_part).any():
        return TaskResult.not_done("dose", NO_CONTROLS)
    axis = POSITIVE_AXIS if is_positive(screen).any() else HIGHEST_AXIS
    places = places_on_axis(screen)
    rows = list(compounds(screen, dosed, places, axis))
    activity = active_doses(screen, dosed)
    table = compounds_table(rows, activity)
    tables = {
        "": table,
        "wells": wells_table(screen, dosed, places),
        "plates": control_separation(screen, places),
        "doses": activity.join(
            mean_places(dosed, places), on=["compound", "dose"], how="left", maintain_order="left"
        ),
    }
    return TaskResult("dose", headline(screen, tables, axis), tables)


def compounds(
    screen: Screen, dosed: pl.DataFrame, places: Float64[ndarray, " wells"], axis: str
) -> Iterator[dict[str, Any]]:
    """Judge each compound; fills in the places where they are found compound by compound."""
    positive, origins = is_positive(screen), plate_origins(screen)
    settings = {"most": screen.settings.null_size, "seed": screen.settings.seed}
    for (name,), own in sorted(dosed.group_by(["compound"], maintain_order=True)):
        rows, doses = own["well"].to_numpy(), own["dose"].to_numpy()
        plate = screen.wells.plate[rows]
        if axis == POSITIVE_AXIS:
            judged = np.where(positive[rows], np.nan, places[rows])
            trend = trend_along_axis(doses, judged, plate, name=str(name), **settings)
        else:
            trend, judged = highest_dose(screen, rows, doses, origins, name=str(name))
            places[rows] = judged
        yield {
            "compound": name,
            "unit": own["unit"][0],
            "doses": own["dose"].n_unique(),
            "wells": own.height,
            **trend_row(trend),
            **curve_row(doses, judged),
        }


def highest_dose(
    screen: Screen,
    rows: Int[ndarray, " own"],
    doses: Float64[ndarray, " own"],
    origins: Mapping[int, Float64[ndarray, " features"]],
    *,
    name: str,
) -> tuple[Trend, Float64[ndarray, " own"]]:
    """Trend and places of one compound's wells on the axis to its highest dose; NaN on plates without controls."""
    is_judged = np.isin(screen.wells.plate[rows], list(origins))
    places = np.full(rows.size, np.nan)
    if np.unique(doses[is_judged]).size < 2:
        return Trend(None, None, None, 0), places
    plate = screen.wells.plate[rows[is_judged]]
    moved = screen.normalized.features[rows[is_judged]].astype(np.float64) - np.stack(
        [origins[p] for p in plate]
    )
    settings = screen.settings
    trend, places[is_judged] = trend_to_highest_dose(
        doses[is_judged], moved @ moved.T, plate, most=settings.null_size, seed=settings.seed, name=name
    )
    return trend, places


def trend_row(trend: Trend) -> dict[str, Any]:
    return {"judged": trend.wells, "trend": trend.spearman, "p": trend.p, "smallest_p": trend.smallest_p}


def curve_row(doses: Float64[ndarray, " own"], places: Float64[ndarray, " own"]) -> dict[str, Any]:
    curve = fit_curve(doses, places)
    if curve is None:
        return dict.fromkeys(CURVE)
    values = (curve.ec50, curve.low, curve.high, curve.slope, curve.bottom, curve.top)
    return dict(zip(CURVE, values, strict=True))


def compounds_table(rows: Sequence[Mapping[str, Any]], activity: pl.DataFrame) -> pl.DataFrame:
    """One row per compound, with q over the compounds that have a p, and the lowest dose that is active."""
    schema = {
        "compound": pl.String,
        "unit": pl.String,
        "doses": pl.Int64,
        "wells": pl.Int64,
        "judged": pl.Int64,
    }
    schema |= dict.fromkeys(("trend", "p", "smallest_p", *CURVE), pl.Float64)
    table = pl.DataFrame(rows, schema=schema)
    q = np.full(table.height, np.nan)
    has_p = table["p"].is_not_null().to_numpy()
    q[has_p] = benjamini_hochberg(table["p"].drop_nulls().to_numpy())
    table.insert_column(table.columns.index("p") + 1, pl.Series("q", q).fill_nan(None))
    lowest = (
        activity.filter(pl.col("is_active"))
        .group_by("compound")
        .agg(pl.col("dose").min().alias("lowest_active_dose"))
    )
    counted = activity.group_by("compound").agg(
        pl.col("is_active").sum().cast(pl.Int64).alias("active_doses")
    )
    joined = table.join(lowest, on="compound", how="left", maintain_order="left")
    return joined.join(counted, on="compound", how="left", maintain_order="left")


def wells_table(screen: Screen, dosed: pl.DataFrame, places: Float64[ndarray, " wells"]) -> pl.DataFrame:
    """Places of the dosed wells and of all controls; controls that are no dose have no compound and no dose."""
    is_control = (screen.wells.is_control & screen.wells.takes_part) | is_positive(screen)
    rows = np.union1d(dosed["well"].to_numpy(), np.flatnonzero(is_control))
    wells = screen.raw.metadata[rows].select(PLATE, WELL, PERTURBATION, CONTROL_TYPE)
    wells = wells.with_columns(pl.Series("well", rows), pl.Series("projection", places[rows]).fill_nan(None))
    given = dosed.select(pl.col("well").cast(wells["well"].dtype), "compound", "dose", "unit")
    return wells.join(given, on="well", how="left", maintain_order="left").select(
        PLATE, WELL, PERTURBATION, "compound", "dose", "projection", "unit", CONTROL_TYPE
    )


def mean_places(dosed: pl.DataFrame, places: Float64[ndarray, " wells"]) -> pl.DataFrame:
    placed = dosed.with_columns(pl.Series("place", places[dosed["well"].to_numpy()]).fill_nan(None))
    return placed.group_by("compound", "dose").agg(pl.col("place").mean().alias("projection"))


def headline(screen: Screen, tables: Mapping[str, pl.DataFrame], axis: str) -> dict[str, Any]:
    """Numbers of metrics.json."""
    table, doses, settings = tables[""], tables["doses"], screen.settings
    tested = table.filter(pl.col("p").is_not_null())
    values = {
        "fraction_significant": (tested["q"] < SIGNIFICANT_Q).cast(pl.Float64),
        "mean_trend": tested["trend"],
        "mean_z_prime": tables["plates"]["z_prime"].drop_nulls(),
    }
    estimates = {
        name: mean_with_interval(
            column.to_numpy(), resamples=settings.bootstraps, seed=settings.seed, name=f"dose/{name}"
        ).as_metric()
        for name, column in values.items()
        if not column.is_empty()
    }
    return {
        "axis": axis,
        "compounds": table.height,
        "compounds_tested": tested.height,
        "compounds_active": table["lowest_active_dose"].drop_nulls().len(),
        "doses": doses.height,
        "doses_tested": doses["p"].drop_nulls().len(),
        "doses_active": int(doses["is_active"].sum()),
        "wells": int(table["wells"].sum()),
        "smallest_p": tested["smallest_p"].min(),
        "smallest_p_of_doses": doses["smallest_p"].min(),
        "active": named_doses(table),
        "leading": leading(table),
    } | estimates


def named_doses(table: pl.DataFrame) -> list[dict[str, Any]]:
    """A few compounds with an active dose, the clearest trends first."""
    active = table.filter(pl.col("lowest_active_dose").is_not_null()).sort(
        "q", "p", "compound", nulls_last=True
    )
    return active.head(MOST_NAMED).select("compound", "lowest_active_dose", "unit").to_dicts()


def leading(table: pl.DataFrame) -> list[dict[str, Any]]:
    """A few compounds that follow the dose, the clearest first, with the dose of half their effect where it is known."""
    found = table.filter(pl.col("q") < SIGNIFICANT_Q).sort("q", "p", "compound")
    return found.head(MOST_NAMED).select("compound", "trend", "q", "ec50", "unit").to_dicts()
