"""What is known of one perturbation beyond its scores: labels, resemblance, doses, replicates and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.doses import control_band
from cellvim.evaluate.report.montage import Pictures
from cellvim.evaluate.report.wording import rounded, spelled

NAME = "Metadata_Perturbation"
KEYS = ("Metadata_Plate", "Metadata_Well")
FIXED = (*KEYS, NAME, "Metadata_ControlType")
TELLING = ("moa", "mechanism", "target", "gene", "pathway", "iname", "name", "compound", "smiles")
MOST_LABELS = 4
LONGEST_LABEL = 160


def focus(content: ReportContent, names: Sequence[str]) -> dict[str, Any]:
    """What the focus panel shows; perturbations by their place among `names`.

    Args:
        content: The report's tables.
        names: Every perturbation of the wells.
    """
    code = {name: place for place, name in enumerate(names)}
    return {
        "similar": _similar(content.similar, code),
        "labels": _labels(content.wells, code),
        "replicating": _replicating(content.on_disk("percent_replicating"), code),
        "dose": _doses(content),
    }


def well_pictures(content: ReportContent, pictures: Pictures) -> list[int | None]:
    """Place of each well's picture: those in use, and as many others as there is room for, a few of everything."""
    if not pictures.found:
        return []
    turn = pl.int_range(pl.len()).over(NAME)
    keys = content.wells.select(pl.col(KEYS).cast(pl.String), turn.alias("turn")).rows()
    places = {(plate, well): pictures.place((plate, well)) for plate, well, _ in sorted(keys, key=_turn)}
    return [places[plate, well] for plate, well, _ in keys]


def _turn(key: tuple[str, str, int]) -> int:
    return key[2]


def _similar(table: pl.DataFrame, code: Mapping[str, int]) -> dict[str, list[tuple[int, float]]]:
    """By code, pairs of code and cosine, nearest first."""
    found: dict[str, list[tuple[int, float]]] = {}
    for name, other, similarity in (
        table.sort(NAME, "rank").select(NAME, "neighbor", "similarity").iter_rows()
    ):
        cosine = rounded(similarity, 3)
        if name in code and other in code and cosine is not None:
            found.setdefault(str(code[name]), []).append((code[other], cosine))
    return found


def _labels(wells: pl.DataFrame, code: Mapping[str, int]) -> list[dict[str, Any]]:
    """Columns that say the same of all wells of a perturbation, such as its target: values by code."""
    texts = wells.filter(pl.col(NAME).is_not_null()).with_columns(pl.col(NAME).cast(pl.String))
    candidates = [
        name
        for name, kind in wells.schema.items()
        if name.startswith("Metadata_")
        and name not in FIXED
        and kind == pl.String
        and _telling(name) < len(TELLING)
    ]
    grouped = texts.group_by(NAME).agg(
        pl.col(candidates).drop_nulls().n_unique().name.suffix("|count"),
        pl.col(candidates).drop_nulls().first(),
    )
    constant = [
        name
        for name in candidates
        if (grouped[f"{name}|count"] <= 1).all() and grouped[name].drop_nulls().n_unique() > 1
    ]
    constant.sort(key=_telling)
    return [
        {
            "label": spelled(name.removeprefix("Metadata_")),
            "values": {
                str(code[of]): value[:LONGEST_LABEL].replace("|", ", ")
                for of, value in grouped.select(NAME, name).sort(NAME).iter_rows()
                if value and value != of and of in code
            },
        }
        for name in constant[:MOST_LABELS]
    ]


def _telling(name: str) -> int:
    """Place of a column among those that say most to a biologist."""
    lower = name.lower()
    return next((place for place, word in enumerate(TELLING) if word in lower), len(TELLING))


def _replicating(table: pl.DataFrame | None, code: Mapping[str, int]) -> dict[str, list[Any]]:
    """By code: median correlation of the replicates, its threshold, and whether it is beyond."""
    columns = (NAME, "similarity", "threshold", "is_replicating")
    if table is None or not set(columns) <= set(table.columns):
        return {}
    return {
        str(code[str(name)]): [rounded(similarity), rounded(threshold), is_replicating]
        for name, similarity, threshold, is_replicating in table.select(columns).iter_rows()
        if str(name) in code
    }


def _doses(content: ReportContent) -> dict[str, Any] | None:
    """Wells with a dose and their projections, by column; wells by their row in `content.wells`."""
    table = content.on_disk("dose_wells")
    if table is None or not {*KEYS, "compound", "dose", "projection"} <= set(table.columns):
        return None
    keys = content.wells.select(pl.col(KEYS).cast(pl.String)).with_row_index("row")
    rows = table.with_columns(pl.col(KEYS).cast(pl.String)).join(
        keys, on=KEYS, how="inner", maintain_order="left"
    )
    compounds = rows["compound"].cast(pl.String)
    names = sorted(set(compounds.drop_nulls()))
    code = {name: place for place, name in enumerate(names)}
    fits = content.on_disk("dose")
    return {
        "compounds": names,
        "compound": [None if name is None else code[name] for name in compounds],
        "well": rows["row"].to_list(),
        "dose": [rounded(dose) for dose in rows["dose"].cast(pl.Float64)],
        "projection": [rounded(value, 3) for value in rows["projection"].cast(pl.Float64)],
        "fits": {} if fits is None else _fits(fits),
        "band": control_band(table),
    }


def _fits(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """What the dose task found for each compound."""
    shown = [
        name
        for name in ("unit", "trend", "p", "q", "lowest_active_dose", "ec50", "smallest_p")
        if name in table.columns
    ]
    rows = table.filter(pl.col("compound").is_not_null()).select("compound", *shown).iter_rows(named=True)
    return {
        str(row["compound"]): {
            name: rounded(row[name]) if name != "unit" else str(row[name] or "") for name in shown
        }
        for row in rows
    }
