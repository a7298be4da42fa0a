"""Settings of `cellvim evaluate` and `cellvim normalize`."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from cellvim.config.base import Positive, Settings

Normalization = Literal["sphere", "mad", "standardize", "tvn", "pca", "none"]
Average = Literal["mean", "median"]
TaskName = Literal[
    "activity",
    "distinctiveness",
    "replicate_retrieval",
    "consistency",
    "nsc",
    "nscb",
    "percent_replicating",
    "recall",
    "dose",
    "probe",
    "batch",
]
TASK_NAMES: tuple[TaskName, ...] = get_args(TaskName)


class EvaluateSettings(Settings):
    """`cellvim evaluate`: how good are the profiles of one or more tables?"""

    tables: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Profile tables: Parquet or CSV, ours or a peer's."""
    out: Path
    """Folder that receives report.html, metrics.json and the tables behind them."""
    platemap: Path | None = None
    """Plate map joined by plate and well, for tables that carry none."""
    perturbation: str | None = None
    """Column that says what was done to a well; `Metadata_Perturbation` if absent."""
    control: str | None = None
    """Negative controls as ``COLUMN=VALUE``, for example ``Metadata_broad_sample=DMSO``."""
    label: str | None = None
    """Column of targets or mechanisms, for `consistency`, `nsc`, `nscb` and `probe`; several per well are allowed.
    If absent, the first three take the usual name that the table has, and `probe` predicts the perturbation."""
    label_separator: Annotated[str, Field(min_length=1)] = "|"
    """What stands between the labels of a well that has several."""
    relations: Path | None = None
    """Known relationships, for `recall`: a table whose first two columns name the perturbations of a pair."""
    dose: str | None = None
    """Column of doses, for `dose`; found by its usual names if absent."""
    batch: str | None = None
    """Column of batches, for `nscb`, `batch` and `tvn`; found by its usual names, else the plate is the batch."""
    normalize: Normalization = "sphere"
    average: Average = "mean"
    """From crops, fields or cells to wells."""
    consensus: Average = "mean"
    """From wells to one profile per perturbation; the median is not the same in rotated features."""
    tasks: Annotated[tuple[TaskName, ...], Field(min_length=1)] = TASK_NAMES
    different_position: bool = False
    """Replicates count for `replicate_retrieval` only where they lie at another well position, too."""
    null_size: Positive = 10000
    """Random rank lists behind each p-value, where they cannot all be counted."""
    bootstraps: Positive = 1000
    """Resamples behind each interval."""
    seed: Annotated[int, Field(ge=0)] = 0
    title: str | None = None
    """Heading of the report."""
    left_out: Path | None = None
    """CSV with columns plate, step and error: plates that belong to the study and failed, for the report to name."""
    is_synthetic: bool = False
    """Say on every page that the data are synthetic."""
    overwrite: bool = False
    """Replace results of other inputs or settings."""


class NormalizeSettings(Settings):
    """`cellvim normalize`: from profile tables to one table of normalised wells, or perturbations."""

    tables: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Profile tables, or folders of them, that were made alike; they become one table."""
    out: Path
    """Parquet table to write."""
    normalize: Normalization | None = None
    """If absent, the method of `fitted`, or else ``sphere``."""
    average: Average = "mean"
    """From crops, fields or cells to wells, and from wells to perturbations."""
    is_consensus: bool = False
    """One row per perturbation instead of per well."""
    platemap: Path | None = None
    """Plate map joined by plate and well, for tables that carry none."""
    perturbation: str | None = None
    """Column that says what was done to a well; `Metadata_Perturbation` if absent."""
    control: str | None = None
    """Negative controls as ``COLUMN=VALUE``, for example ``Metadata_broad_sample=DMSO``."""
    batch: str | None = None
    """Column of batches, for `tvn`; found by its usual names, else the plate is the batch."""
    save: Path | None = None
    """File that keeps what was fitted, for plates to come."""
    fitted: Path | None = None
    """File that an earlier run kept: nothing is fitted anew but each plate's own centre and spread."""
    overwrite: bool = False
    """Replace what other inputs or settings made."""

    @model_validator(mode="after")
    def _what_is_fitted_elsewhere_is_not_fitted_here(self) -> Self:
        if self.fitted is not None and (self.save is not None or self.batch is not None):
            msg = "with --fitted nothing is fitted that --save could keep or that --batch is about"
            raise ValueError(msg)
        if self.normalize == "none" and (self.save is not None or self.fitted is not None):
            msg = "none fits nothing: leave out --save and --fitted"
            raise ValueError(msg)
        return self
