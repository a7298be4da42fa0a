"""The data behind the charts, as JSON that cannot leave its script element.

Wells are stored by column and names once each, so that ten plates of 384 wells stay under a megabyte.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import TASK_LABELS, ReportContent
from cellvim.evaluate.report.measures import Measure
from cellvim.evaluate.report.plates import place_of, plate_shape
from cellvim.evaluate.report.wording import spelled

CLAIMS = {
    "activity": "differs from the controls",
    "distinctiveness": "differs from other perturbations",
    "replicate_retrieval": "comes back on other plates",
}
"""What it means for a perturbation to be significant."""
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


def payload(content: ReportContent, measured: Sequence[Measure]) -> dict[str, Any]:
    """Wells as the page's script draws them: places, plates, measures and categories."""
    wells = content.wells
    places = [place_of(well) for well in wells["Metadata_Well"].cast(pl.String)]
    return {
        "plates": _plates(wells),
        "wells": {
            "name": wells["Metadata_Well"].cast(pl.String).to_list(),
            "row": [place[0] if place else None for place in places],
            "column": [place[1] if place else None for place in places],
        },
        "measures": [measure.as_json() for measure in measured],
        "categories": _categories(wells),
        "tasks": {task: {"label": TASK_LABELS[task], "claim": CLAIMS[task]} for task in content.tasks},
        "tables": list(content.tables),
    }


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
