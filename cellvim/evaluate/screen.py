"""A table of wells as the tasks of the evaluation see it: profiles, and what was done to each well."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float64, Integer
from numpy import ndarray

from cellvim.config import EvaluateSettings
from cellvim.evaluate.questions import WellLabels
from cellvim.profiles import Profiles, plate_codes, require_column
from cellvim.profiles.schema import CONTROL_TYPE, EMPTY, PERTURBATION, PLATE, first_present
from cellvim.store import name_compounds

logger = logging.getLogger(__name__)

# How peers name targets and mechanisms, in the order in which they are looked for.
LABEL_NAMES = (
    "Metadata_MoA", "Metadata_moa", "Metadata_MOA", "Metadata_Mechanism", "Metadata_mechanism",
    "Metadata_target", "Metadata_Target", "Metadata_target_list", "Metadata_gene_target",
)  # fmt: skip
DOSE_NAMES = (
    "Metadata_Dose", "Metadata_dose", "Metadata_Concentration", "Metadata_concentration", "Metadata_conc",
    "Metadata_Compound_Concentration", "Metadata_mmoles_per_liter", "Metadata_mg_per_ml",
)  # fmt: skip
# Names of perturbations as plate maps without a perturbation make them: compound@dose unit.
NAMED_DOSE = r"^(.+)@\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\S*)$"
BATCH_NAMES = (
    "Metadata_Batch",
    "Metadata_batch",
    "Metadata_Batch_Number",
    "Metadata_Source",
    "Metadata_Week",
)


@dataclass(frozen=True)
class Screen:
    """One table of wells, and how it is to be judged.

    Args:
        raw: Wells before normalisation.
        normalized: The same wells after it.
        settings: How to judge.
    """

    raw: Profiles
    normalized: Profiles
    settings: EvaluateSettings

    @cached_property
    def wells(self) -> WellLabels:
        return well_labels(self.raw)

    @cached_property
    def label_column(self) -> str | None:
        """Column of targets or mechanisms: the one asked for, or a usual name; None if the table has none."""
        if self.settings.label is not None:
            return require_column(self.raw, self.settings.label)
        return first_telling(LABEL_NAMES, self.raw.metadata)

    @cached_property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """Labels of each well, in the order of the table; none where the column is empty, or there is no column."""
        if self.label_column is None:
            return ((),) * self.raw.metadata.height
        return split_labels(self.raw.metadata[self.label_column], self.settings.label_separator)

    @cached_property
    def compounds(self) -> pl.Series:
        """What each well was given, whatever the dose: what counts as the same compound, or must be held out together."""
        return compounds_of(self.raw.metadata)

    @cached_property
    def compound_of(self) -> Mapping[str, str]:
        """Compound of each perturbation."""
        name = pl.col(PERTURBATION).cast(pl.String)
        named = self.raw.metadata.select(name, self.compounds.alias("compound")).drop_nulls()
        first = named.group_by(PERTURBATION).agg(pl.col("compound").min())
        return dict(first.iter_rows())

    @cached_property
    def batch_column(self) -> str:
        """Column of batches: the one asked for, a usual name, or the plate."""
        if self.settings.batch is not None:
            return require_column(self.raw, self.settings.batch)
        return first_telling(BATCH_NAMES, self.raw.metadata) or PLATE

    @cached_property
    def batches(self) -> pl.Series:
        return self.raw.metadata[self.batch_column].cast(pl.String).fill_null("")

    @cached_property
    def dose_column(self) -> str | None:
        if self.settings.dose is not None:
            return require_column(self.raw, self.settings.dose)
        return first_telling(DOSE_NAMES, self.raw.metadata)

    @cached_property
    def doses(self) -> Float64[ndarray, " wells"]:
        """Dose of each well in the table's own unit; NaN where there is none."""
        if self.dose_column is None:
            return np.full(self.raw.metadata.height, np.nan)
        column = self.raw.metadata[self.dose_column].cast(pl.Float64, strict=False)
        return column.fill_null(float("nan")).to_numpy().copy()

    def only(self, rows: Integer[ndarray, " kept"]) -> "Screen":
        """The same screen with some of its wells, in the given order."""
        return Screen(self.raw.only(rows), self.normalized.only(rows), self.settings)

    def treated(self, *columns: pl.Series) -> Profiles:
        """Normalised treated wells, with some columns of this screen (`compounds`, `batches`) added to their metadata."""
        wells = replace(self.normalized, metadata=self.raw.metadata.with_columns(*columns))
        return wells.only(np.flatnonzero(self.wells.is_treated))


def compounds_of(metadata: pl.DataFrame) -> pl.Series:
    """What each well was given, whatever the dose: from the columns that say so, else from names like ``drug@0.5 uM``.

    Null where a well has neither a compound nor a perturbation.
    """
    given = name_compounds(metadata)
    is_all_there_is = given == metadata[PERTURBATION].cast(pl.String).str.strip_chars()
    before_dose = pl.when(is_all_there_is).then(given.str.extract(NAMED_DOSE, 1).str.strip_chars())
    return pl.select(pl.coalesce(before_dose, given)).to_series()


def first_telling(names: tuple[str, ...], metadata: pl.DataFrame) -> str | None:
    """First of some columns that holds anything."""
    return first_present(tuple(name for name in names if has_content(name, metadata)), metadata)


def has_content(name: str, metadata: pl.DataFrame) -> bool:
    return name in metadata.columns and metadata[name].null_count() < metadata.height


def split_labels(column: pl.Series, separator: str) -> tuple[tuple[str, ...], ...]:
    """Labels of each well, sorted and without doubles; none where the cell is empty."""
    found: dict[str | None, tuple[str, ...]] = {None: ()}
    texts = column.cast(pl.String).to_list()
    for text in set(texts) - {None}:
        parts = {part.strip() for part in str(text).split(separator)}
        found[text] = tuple(sorted(parts - {""}))
    return tuple(found[text] for text in texts)


def well_labels(profiles: Profiles) -> WellLabels:
    """Codes of plates and perturbations; empty wells and wells without a perturbation take no part."""
    names = profiles.metadata[PERTURBATION].to_numpy()
    takes_part = profiles.metadata.select(
        pl.col(PERTURBATION).is_not_null() & pl.col(CONTROL_TYPE).ne_missing(EMPTY)
    ).to_series()
    codes = np.full(len(names), -1)
    mask = takes_part.to_numpy()
    codes[mask] = np.unique(names[mask].astype(str), return_inverse=True)[1]
    return WellLabels(plate_codes(profiles), codes, profiles.is_control)
