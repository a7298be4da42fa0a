"""The data behind the charts, as JSON that cannot leave its script element.

Wells are stored by column and names once each, so that ten plates of 384 wells stay under a megabyte.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import SIGNIFICANT_Q, ReportContent
from cellvim.evaluate.report.plates import place_of, plate_shape
from cellvim.evaluate.report.wording import finite, rounded, spelled

MEASURE_LABELS = {
    "activity_ap": "Activity (average precision)",
    "pca_1": "PCA 1",
    "pca_2": "PCA 2",
    "umap_1": "UMAP 1",
    "umap_2": "UMAP 2",
    "n_fields": "Fields imaged",
}
MOST_CATEGORIES = 42
"""Seven colours times six shapes: what a reader can tell apart, at best."""
MOST_EXTRA_COLUMNS = 8
_FIXED_COLUMNS = ("Metadata_Plate", "Metadata_Well", "Metadata_Perturbation", "Metadata_ControlType")
_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def script_json(value: Any) -> str:
    r"""Write JSON that is inert inside a script element, whatever names it holds.

    >>> script_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPES)


def payload(content: ReportContent) -> dict[str, Any]:
    """Everything the page's script draws: wells, plates, measures, categories and perturbation scores."""
    wells = content.wells
    places = [place_of(well) for well in wells["Metadata_Well"].cast(pl.String)]
    return {
        "plates": _plates(wells),
        "wells": {
            "name": wells["Metadata_Well"].cast(pl.String).to_list(),
            "row": [place[0] if place else None for place in places],
            "column": [place[1] if place else None for place in places],
        },
        "measures": _measures(wells),
        "categories": _categories(wells),
        "scores": {task: _scores(content, task) for task in content.tasks},
        "tables": list(content.tables),
    }


def measure_columns(wells: pl.DataFrame) -> list[str]:
    """Columns a plate can be coloured by: the known measures of which at least one well has a value."""
    return [key for key in MEASURE_LABELS if key in wells.columns and wells[key].is_not_null().any()]


def category_columns(wells: pl.DataFrame) -> list[str]:
    """Columns a map can be coloured by: plate, perturbation, control, and small `Metadata_*` columns."""
    named = ["Metadata_Plate", "Metadata_Perturbation", "Metadata_ControlType"]
    extra = [name for name in wells.columns if name.startswith("Metadata_") and name not in _FIXED_COLUMNS]
    telling = [name for name in extra if 2 <= wells[name].drop_nulls().n_unique() <= MOST_CATEGORIES]
    return [name for name in named if name in wells.columns] + telling[:MOST_EXTRA_COLUMNS]


def category_label(column: str) -> str:
    known = {"Metadata_ControlType": "Control type"}
    return known.get(column, spelled(column.removeprefix("Metadata_")))


def _plates(wells: pl.DataFrame) -> list[dict[str, Any]]:
    plates = []
    for name in _names(wells["Metadata_Plate"]):
        shape = plate_shape(wells.filter(pl.col("Metadata_Plate").cast(pl.String) == name)["Metadata_Well"])
        rows, columns = shape or (0, 0)
        plates.append({"name": name, "rows": rows, "columns": columns})
    return plates


def _measures(wells: pl.DataFrame) -> list[dict[str, Any]]:
    measures = []
    for key in measure_columns(wells):
        values = [rounded(value) for value in wells[key]]
        known = [value for value in values if value is not None]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if key == "activity_ap":
            low, high = 0.0, 1.0
        measures.append(
            {"key": key, "label": MEASURE_LABELS[key], "values": values, "low": low, "high": high}
        )
    return measures


def _categories(wells: pl.DataFrame) -> list[dict[str, Any]]:
    return [
        {"key": name, "label": category_label(name), **_coded(wells[name])}
        for name in category_columns(wells)
    ]


def _coded(column: pl.Series) -> dict[str, Any]:
    names = _names(column)
    code = {name: number for number, name in enumerate(names)}
    return {"names": names, "codes": [None if value is None else code[value] for value in _texts(column)]}


def _names(column: pl.Series) -> list[str]:
    """Return distinct values in the order people count: ``2 uM`` before ``10 uM``."""
    return sorted({text for text in _texts(column) if text is not None}, key=_natural)


def _natural(text: str) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", text.lower())
    return [(int(part), "") if number % 2 else (-1, part) for number, part in enumerate(parts)] + [(-2, text)]


def _texts(column: pl.Series) -> Sequence[str | None]:
    return column.cast(pl.String).to_list()


def _scores(content: ReportContent, task: str) -> list[dict[str, Any]]:
    """Perturbations judged by a task: one point each, and per table the p that a q of 0.05 stands for."""
    columns = [f"{task}_{name}" for name in ("map", "p", "q", "smallest_p")]
    tested = content.perturbations.filter(pl.col(f"{task}_p").is_not_null())
    points = []
    for row in tested.iter_rows(named=True):
        strength, p, q, smallest_p = (rounded(row.get(column)) for column in columns)
        if strength is None or p is None:
            continue
        points.append(
            {
                "table": str(row["table"]),
                "name": str(row["Metadata_Perturbation"]),
                "replicates": finite(row["replicates"]),
                "map": strength,
                "p": p,
                "q": q,
                "smallest_p": smallest_p,
                "is_significant": q is not None and q < SIGNIFICANT_Q,
            }
        )
    return points
