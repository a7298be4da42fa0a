"""What a report is made of. The evaluate stage fills it; the page only lays it out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

TASK_LABELS = {
    "activity": "Activity",
    "distinctiveness": "Distinctiveness",
    "replicate_retrieval": "Replicate retrieval",
}
TASK_QUESTIONS = {
    "activity": "Do its wells stand apart from the negative controls of their plate?",
    "distinctiveness": "Do its wells stand apart from the other perturbations of their plate?",
    "replicate_retrieval": "Do its wells find each other on other plates?",
}
SIGNIFICANT_Q = 0.05


def no_similar() -> pl.DataFrame:
    texts = dict.fromkeys(("Metadata_Perturbation", "neighbor"), pl.String)
    return pl.DataFrame(schema=texts | {"rank": pl.Int64, "similarity": pl.Float64})


@dataclass(frozen=True)
class ReportContent:
    """Everything that a page shows, as tables and plain values. Every name in it is untrusted text.

    Args:
        title: Heading of the page.
        is_synthetic: Whether the data are made up, which the page then says on every screen and sheet.
        wells: One row per well of the first table: `Metadata_Plate`, `Metadata_Well`,
            `Metadata_Perturbation`, `Metadata_ControlType` (nullable), `pca_1`, `pca_2`, `umap_1`, `umap_2`,
            `activity_ap` (nullable), `n_fields` (nullable), `control_distance` (nullable; may be absent) and any
            other `Metadata_*`.
        perturbations: One row per table and perturbation: `table`, `Metadata_Perturbation`, `replicates`,
            `plates`, and for each task present `{task}_map`, `{task}_normalized_map`, `{task}_p`,
            `{task}_q`, `{task}_smallest_p` (nullable).
        neighbors: Nearest wells of some query wells of the first table: `Metadata_Plate`, `Metadata_Well`
            (the query), `rank` from 1, `neighbor_plate`, `neighbor_well`, `similarity` (cosine).
        thumbnails: `Metadata_Plate`, `Metadata_Well`, `png` (the bytes of a PNG or JPEG file), or None.
        metrics: What metrics.json holds.
        facts: Command, versions, settings, inputs with their sha256, counts, model cards, `warnings`.
        tables_on_disk: What the Parquet files beside the page hold, by name without ending (`consistency`,
            `dose_wells`); the first column, `table`, names the profile table.
        similar: The perturbations of the first table most like each: `Metadata_Perturbation`, `rank` from 1,
            `neighbor`, `similarity` (cosine of consensus profiles).
    """

    title: str
    is_synthetic: bool
    wells: pl.DataFrame
    perturbations: pl.DataFrame
    neighbors: pl.DataFrame
    thumbnails: pl.DataFrame | None
    metrics: dict[str, Any]
    facts: dict[str, Any]
    tables_on_disk: Mapping[str, pl.DataFrame] = field(default_factory=dict)
    similar: pl.DataFrame = field(default_factory=no_similar)

    def on_disk(self, stem: str) -> pl.DataFrame | None:
        """Rows of the first table in one of the tables on disk; None if there are none."""
        found = self.tables_on_disk.get(stem)
        if found is None or not self.tables:
            return None
        own = found.filter(pl.col("table").cast(pl.String) == self.tables[0])
        return None if own.is_empty() else own

    @property
    def tasks(self) -> tuple[str, ...]:
        """Retrieval tasks that the perturbations were judged by, in the order a biologist asks them."""
        return tuple(task for task in TASK_LABELS if f"{task}_map" in self.perturbations.columns)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the profile tables, the first one leading."""
        named = [str(table.get("name", "")) for table in self.metrics.get("tables", [])]
        return tuple(dict.fromkeys([*named, *self.perturbations["table"].cast(pl.String).to_list()]))
