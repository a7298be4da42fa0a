"""What a plate can be coloured by: scores, distances and counts of wells."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.wording import rounded, spelled

KEYS = ["Metadata_Plate", "Metadata_Well"]
LABELS = {
    "activity_ap": "Activity (average precision)",
    "distinctiveness_ap": "Distinctiveness (average precision)",
    "replicate_retrieval_ap": "Replicate retrieval (average precision)",
    "control_distance": "Distance from the controls",
    "dose_projection": "Projection on the dose axis",
    "n_fields": "Fields imaged",
    "pca_1": "PCA 1",
    "pca_2": "PCA 2",
    "umap_1": "UMAP 1",
    "umap_2": "UMAP 2",
}
FROM_DISK = {
    "distinctiveness_ap": ("distinctiveness_wells", "ap"),
    "replicate_retrieval_ap": ("replicate_retrieval_wells", "ap"),
    "dose_projection": ("dose_wells", "projection"),
}
MOST_OWN_COLUMNS = 12
"""Of the numeric columns that a table brings itself."""
MOST_EXACT_WELLS = 8000
"""Beyond it values are stored as thousandths of their range, which no colour shows."""
STEPS = 999


@dataclass(frozen=True)
class Measure:
    """A value for each well, nullable, and the range of the colours."""

    key: str
    label: str
    values: pl.Series
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        """Values to four digits, or where there are many, as `steps` of the range."""
        about = {"key": self.key, "label": self.label, "low": self.low, "high": self.high}
        if self.values.len() <= MOST_EXACT_WELLS:
            return about | {"values": [rounded(value) for value in self.values]}
        known = self.values.drop_nulls().to_numpy()
        floor = float(known.min())
        span = float(known.max()) - floor or 1.0
        steps = ((self.values - floor) / span * STEPS).round().cast(pl.Int64)
        step = rounded(span / STEPS, 6)
        return about | {"values": steps.to_list(), "first": rounded(floor, 6), "step": step}


def measures(content: ReportContent) -> list[Measure]:
    """Everything that is known of at least one well: of ours first, then numbers among the table's own columns."""
    wells = with_scores(content)
    found = [_measure(wells, key, LABELS[key]) for key in LABELS if key in wells.columns]
    own = [_measure(wells, key, spelled(key.removeprefix("Metadata_"))) for key in own_columns(wells)]
    return [measure for measure in (*found, *own) if measure is not None]


def with_scores(content: ReportContent) -> pl.DataFrame:
    """Wells with the scores of the tasks that judged them; a well that was judged several times has their mean."""
    keys = content.wells.select(pl.col(KEYS).cast(pl.String))
    columns = [_from_disk(content, keys, key) for key in FROM_DISK if key not in content.wells.columns]
    return content.wells.with_columns(column for column in columns if column is not None)


def _from_disk(content: ReportContent, keys: pl.DataFrame, key: str) -> pl.Series | None:
    stem, column = FROM_DISK[key]
    table = content.on_disk(stem)
    if table is None or not {*KEYS, column} <= set(table.columns):
        return None
    values = table.group_by(pl.col(KEYS).cast(pl.String)).agg(pl.col(column).cast(pl.Float64).mean())
    return keys.join(values, on=KEYS, how="left", maintain_order="left")[column].alias(key)


def own_columns(wells: pl.DataFrame) -> list[str]:
    """Numeric columns of the table in which wells differ."""
    return list(_telling(wells))[:MOST_OWN_COLUMNS]


def _telling(wells: pl.DataFrame) -> Iterator[str]:
    for name, kind in wells.schema.items():
        if name.startswith("Metadata_") and kind.is_numeric() and name not in KEYS:
            values = wells[name].cast(pl.Float64).fill_nan(None)
            if values.drop_nulls().n_unique() > 1:
                yield name


def _measure(wells: pl.DataFrame, key: str, label: str) -> Measure | None:
    values = wells[key].cast(pl.Float64, strict=False)
    values = values.to_frame().select(pl.when(pl.col(key).is_finite()).then(pl.col(key))).to_series()
    if values.drop_nulls().is_empty():
        return None
    if key.endswith("_ap"):
        return Measure(key, label, values, 0.0, 1.0)
    low, high = (rounded(edge) for edge in (values.min(), values.max()))
    return Measure(key, label, values, low or 0.0, high or 0.0)
