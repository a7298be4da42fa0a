"""What the report shows, gathered from the evaluated tables."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Float64
from numpy import ndarray

from cellvim import __version__
from cellvim.config import EvaluateSettings, TaskName
from cellvim.evaluate.embedding_map import principal_components, umap_coordinates
from cellvim.evaluate.left_out import left_out_warning
from cellvim.evaluate.neighbors import montage_queries, nearest_wells
from cellvim.evaluate.outputs import stacked_tables
from cellvim.evaluate.report import ReportContent
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval_tasks import RETRIEVAL_TASKS, SIGNIFICANT_Q
from cellvim.evaluate.screen import well_labels
from cellvim.evaluate.similar import control_distance, similar_perturbations
from cellvim.evaluate.thumbnails import read_thumbnails
from cellvim.profiles.aggregate import FIELD_COUNT
from cellvim.profiles.schema import PERTURBATION, PLATE, WELL
from cellvim.provenance import package_versions

if TYPE_CHECKING:
    from cellvim.evaluate.stage import EvaluatedTable

PACKAGES = ("numpy", "polars", "scikit-learn", "umap-learn")
KEYS = [PLATE, WELL]
FIRST_PICTURES = 4
# Settings that a flag of the same name decides.
FLAGS = (
    "platemap", "perturbation", "control", "label", "label_separator", "relations", "dose", "batch", "normalize",
    "average", "consensus", "tasks", "different_position", "null_size", "bootstraps", "seed", "title",
    "left_out",
)  # fmt: skip


def page_content(
    tables: Sequence["EvaluatedTable"],
    metrics: dict[str, Any],
    settings: EvaluateSettings,
    inputs: Mapping[str, str],
) -> ReportContent:
    """Gather the report: wells, map, neighbours and pictures of the first table, perturbations of all."""
    first = tables[0]
    wells = wells_table(first, settings)
    neighbors = nearest_wells(first.normalized, montage_queries(first.raw, wells["activity_ap"].to_numpy()))
    return ReportContent(
        title=settings.title or "Profiles evaluated: " + ", ".join(table.name for table in tables),
        is_synthetic=settings.is_synthetic,
        wells=wells,
        perturbations=pl.concat([perturbations_table(table) for table in tables], how="diagonal"),
        neighbors=neighbors,
        thumbnails=read_thumbnails(first.raw.source, wells_to_picture(neighbors, wells)),
        metrics=metrics,
        facts=facts_of(tables, settings, inputs, left_out=metrics.get("left_out", [])),
        tables_on_disk=stacked_tables({table.name: table.results for table in tables}),
        similar=similar_perturbations(first.screen, settings.consensus),
    )


def wells_table(table: "EvaluatedTable", settings: EvaluateSettings) -> pl.DataFrame:
    """One row per well: what was done to it, where it lies on the maps, how active it is."""
    pca = principal_components(table.normalized.features)
    umap = umap_coordinates(table.normalized.features, pca, seed=settings.seed)
    metadata = table.raw.metadata
    missing = np.full((metadata.height, 2), np.nan, np.float32)
    fields = metadata.get_column(FIELD_COUNT, default=pl.Series([None] * metadata.height))
    placed = metadata.drop(FIELD_COUNT, strict=False).with_columns(
        *columns_of("pca", pca),
        *columns_of("umap", missing if umap is None else umap),
        fields.cast(pl.Int64, strict=False).alias("n_fields"),
        pl.Series("control_distance", control_distance(table.normalized)).fill_nan(None),
    )
    if not has_rows(table, "activity"):
        return placed.with_columns(pl.lit(None, dtype=pl.Float64).alias("activity_ap"))
    scores = table.results["activity"].tables["wells"].select(*KEYS, pl.col("ap").alias("activity_ap"))
    return placed.join(scores, on=KEYS, how="left", maintain_order="left")


def columns_of(name: str, coordinates: Float32[ndarray, "wells 2"]) -> list[pl.Series]:
    """The two coordinates of a map, null where there are none."""
    return [pl.Series(f"{name}_{axis + 1}", coordinates[:, axis]).fill_nan(None) for axis in range(2)]


def perturbations_table(table: "EvaluatedTable") -> pl.DataFrame:
    """One row per perturbation with the scores of every task, null where a task could not judge it."""
    treated = table.raw.metadata.filter(pl.Series(well_labels(table.raw).is_treated))
    rows = treated.group_by(PERTURBATION).agg(
        pl.len().cast(pl.Int64).alias("replicates"), pl.col(PLATE).n_unique().cast(pl.Int64).alias("plates")
    )
    for task in RETRIEVAL_TASKS:
        if has_rows(table, task):
            scores = table.results[task].rows.drop("replicates", "plates")
            scores = scores.rename(
                {name: f"{task}_{name}" for name in scores.columns if name != PERTURBATION}
            )
            rows = rows.join(scores, on=PERTURBATION, how="left")
    rows = rows.sort(PERTURBATION)
    return rows.insert_column(0, pl.Series("table", [table.name] * rows.height, pl.String))


def has_rows(table: "EvaluatedTable", task: TaskName) -> bool:
    """Whether a retrieval task was asked for and could judge anything."""
    rows = table.results[task].tables.get("") if task in table.results else None
    return rows is not None and not rows.is_empty()


def wells_to_picture(neighbors: pl.DataFrame, wells: pl.DataFrame) -> pl.DataFrame:
    """All wells in the order in which their pictures are wanted, for there may be room for some only.

    Wells of the montage come first, then four of each perturbation, the most active ones leading, then the others.
    """
    queries = neighbors.select(KEYS)
    found = neighbors.select(pl.col("neighbor_plate").alias(PLATE), pl.col("neighbor_well").alias(WELL))
    strength = pl.col("activity_ap").mean().over(PERTURBATION).fill_null(-1.0).fill_nan(-1.0)
    others = (
        wells.with_columns(
            strength.alias("strength"), pl.int_range(pl.len()).over(PERTURBATION).alias("number")
        )
        .with_columns(pl.col("number") // FIRST_PICTURES)
        .sort("number", "strength", PERTURBATION, *KEYS, descending=[False, True, False, False, False])
        .select(KEYS)
    )
    return pl.concat([queries, found, others]).unique(keep="first", maintain_order=True)


def facts_of(
    tables: Sequence["EvaluatedTable"],
    settings: EvaluateSettings,
    inputs: Mapping[str, str],
    *,
    left_out: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """How the page was made. File names only: the same results give the same page in any folder."""
    return {
        "command": command_of(settings),
        "versions": {"cellvim": __version__, **package_versions(PACKAGES)},
        "settings": settings.model_dump(
            mode="json", exclude={"out", "overwrite", "tables", "platemap", "relations", "left_out", "title"}
        ),
        "inputs": dict(inputs),
        "counts": {
            table.name: {
                key: table.metrics[key] for key in ("wells", "plates", "negative_controls", "features_used")
            }
            for table in tables
        },
        "notes": {
            table.name: "; ".join(table.normalized.notes) for table in tables if table.normalized.notes
        },
        "models": {table.name: table.raw.provenance for table in tables if table.raw.provenance},
        "warnings": [
            *left_out_warning(left_out),
            *(
                f"{table.name}: {warning}" if len(tables) > 1 else warning
                for table in tables
                for warning in warnings_of(table)
            ),
        ],
    }


def command_of(settings: EvaluateSettings) -> str:
    """A command that makes the page again, run beside its inputs; empty if there is no such command.

    There is none where two inputs share a file name, and for pages of synthetic data, which no flag asks for.
    """
    inputs = [
        *settings.tables,
        *(path for path in (settings.platemap, settings.relations, settings.left_out) if path),
    ]
    if len({path.name for path in inputs}) < len(inputs) or settings.is_synthetic:
        return ""
    words = ["cellvim", "evaluate", *(path.name for path in settings.tables)]
    defaults = EvaluateSettings.model_fields
    for setting in FLAGS:
        value = getattr(settings, setting)
        if value != defaults[setting].default:
            text = ",".join(value) if isinstance(value, tuple) else getattr(value, "name", str(value))
            words += [f"--{setting.replace('_', '-')}", *([] if value is True else [text])]
    return shlex.join([*words, "--out", "report"])


def warnings_of(table: "EvaluatedTable") -> Iterator[str]:
    """What a reader must know before trusting a number."""
    for warning in table.normalized.warnings:
        yield f"{warning}."
    for task, result in table.results.items():
        if task in RETRIEVAL_TASKS and "reason" not in result.metrics:
            yield from reach_of(task, result)


def reach_of(task: str, result: TaskResult) -> Iterator[str]:
    """Warn of perturbations that could not be found significant, however well their wells find each other."""
    count = result.rows.height
    smallest = result.rows["smallest_p"].to_numpy()
    beyond, alone = smallest >= SIGNIFICANT_Q, smallest * count >= SIGNIFICANT_Q
    if beyond.any():
        yield (
            f"{task}: {beyond.sum()} of {count} perturbations have too few replicates or controls for p < 0.05, "
            f"however well they are found (smallest reachable p {range_of(smallest[beyond])})."
        )
    if alone.sum() > beyond.sum():
        yield (
            f"{task}: {alone.sum()} of {count} perturbations could not reach q < 0.05 if they alone did something: "
            f"q is then {count} times p, and the smallest reachable p is {range_of(smallest[alone])}. "
            "More replicates or controls help, or a larger --null-size where rank lists are sampled."
        )


def range_of(values: Float64[ndarray, " values"]) -> str:
    low, high = f"{values.min():.2g}", f"{values.max():.2g}"
    return low if low == high else f"{low} to {high}"
