"""What was done to each well: perturbation and control type, from the table, a plate map or an option."""

import logging
from dataclasses import replace
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.profiles.schema import (
    CONTROL_TYPE,
    EMPTY,
    METADATA_PREFIX,
    NEGATIVE_CONTROL,
    PERTURBATION,
    PLATE,
    Profiles,
    first_present,
    meant,
    shortened,
)

logger = logging.getLogger(__name__)

# How peers name the perturbation, in the order they are looked for.
PERTURBATION_NAMES = (
    PERTURBATION,
    "Metadata_broad_sample",
    "Metadata_JCP2022",
    "Metadata_pert_iname",
    "Metadata_pert_name",
    "Metadata_pert_id",
    "Metadata_treatment",
    "Metadata_Treatment",
    "Metadata_compound",
    "Metadata_Compound",
    "Metadata_gene",
    "Metadata_Gene",
    "Metadata_Symbol",
)
# How peers mark controls, in the order they are looked for, and what their marks mean without case and spaces.
CONTROL_NAMES = (
    CONTROL_TYPE,
    "Metadata_control_type",
    "Metadata_pert_type",
    "Metadata_broad_sample_type",
)
POSITIVE_CONTROL = "poscon"
MOST_COLUMNS = 40
NEGATIVE_MARKS = ("negcon", "neg", "negative", "negativecontrol", "negcontrol", "negctrl", "control", "ctrl")
SOLVENT_MARKS = ("dmso", "solvent", "vehicle", "untreated", "mock")
POSITIVE_MARKS = ("poscon", "pos", "positive", "positivecontrol", "poscontrol", "posctrl")
CONTROL_VALUES = {
    **dict.fromkeys((*NEGATIVE_MARKS, *SOLVENT_MARKS), NEGATIVE_CONTROL),
    **dict.fromkeys((f"{solvent}control" for solvent in SOLVENT_MARKS), NEGATIVE_CONTROL),
    **dict.fromkeys((*POSITIVE_MARKS, "posconcp", "poscondiverse", "posconorf"), POSITIVE_CONTROL),
    **dict.fromkeys(("empty", "blank"), EMPTY),
}


def annotate(
    profiles: Profiles,
    *,
    platemap: Path | None = None,
    perturbation: str | None = None,
    control: str | None = None,
) -> Profiles:
    """Say in `Metadata_Perturbation` and `Metadata_ControlType` what each row is.

    Args:
        profiles: Any table.
        platemap: Plate map to join by well, and by plate if it names plates.
        perturbation: Column that says what was done to a well; found by its usual names if absent.
        control: Negative controls as ``COLUMN=VALUE``; found by their usual names if absent.

    Raises:
        InputError: A column is missing, or no row matches `control`.
    """
    if platemap is not None:
        from cellvim.store.platemap import join_platemap, read_platemap

        metadata = profiles.metadata
        plates = (
            metadata[PLATE].cast(pl.String).drop_nulls().unique().to_list() if PLATE in metadata else None
        )
        profiles = replace(profiles, metadata=join_platemap(metadata, read_platemap(platemap, plates)))
    profiles = name_perturbations(profiles, perturbation)
    profiles = mark_controls(profiles, control)
    # A negative control may come without a name; it needs one only to be shown.
    name = pl.when(pl.col(CONTROL_TYPE) == NEGATIVE_CONTROL).then(pl.lit(NEGATIVE_CONTROL))
    return replace(
        profiles, metadata=profiles.metadata.with_columns(pl.coalesce(PERTURBATION, name).alias(PERTURBATION))
    )


def name_perturbations(profiles: Profiles, column: str | None) -> Profiles:
    """Fill `Metadata_Perturbation` from the column asked for, or from the first usual one."""
    metadata = profiles.metadata
    chosen = require_column(profiles, column) if column else first_present(PERTURBATION_NAMES, metadata)
    if chosen is None:
        found = f"{profiles.source} does not say what was done to each well"
        hint = (
            "pass --perturbation COLUMN or --platemap FILE; "
            f"the table has {shortened([name for name in metadata.columns if name != PLATE])}"
        )
        raise InputError(found, hint=hint)
    named = replace(
        profiles, metadata=metadata.with_columns(pl.col(chosen).cast(pl.String).alias(PERTURBATION))
    )
    return named if chosen == PERTURBATION else named.noting(f"perturbations are named by {chosen}")


def mark_controls(profiles: Profiles, control: str | None) -> Profiles:
    """Fill `Metadata_ControlType`: by option, or from the first column that marks a negative control.

    What `Metadata_ControlType` marks otherwise stays, also where it is another column that marks those.
    """
    if control is not None:
        return mark_chosen_controls(profiles, control)
    metadata = profiles.metadata
    found = {name: control_marks(metadata[name]) for name in CONTROL_NAMES if name in metadata.columns}
    telling = next((name for name, marks in found.items() if (marks == NEGATIVE_CONTROL).any()), None)
    marks = [found[name] for name in (CONTROL_TYPE, telling) if name in found]
    combined = pl.coalesce(*marks) if marks else pl.lit(None, dtype=pl.String)
    marked = replace(profiles, metadata=metadata.with_columns(combined.alias(CONTROL_TYPE)))
    is_foreign = telling is not None and NEGATIVE_CONTROL not in metadata[telling]
    return marked.noting(f"negative controls are taken from {telling}") if is_foreign else marked


def control_marks(column: pl.Series) -> pl.Series:
    """Control types in the words of the contract: negcon, poscon, empty, or null for anything else."""
    plain = column.cast(pl.String).str.to_lowercase().str.replace_all("[^a-z]", "")
    return plain.replace_strict(CONTROL_VALUES, default=None, return_dtype=pl.String)


def mark_chosen_controls(profiles: Profiles, control: str) -> Profiles:
    """Make the rows that match ``COLUMN=VALUE`` the negative controls, and no others."""
    column, is_split, value = control.partition("=")
    if not is_split:
        found = f"--control {control!r} is not COLUMN=VALUE"
        raise InputError(found, hint="for example --control Metadata_broad_sample=DMSO")
    is_control = pl.col(require_column(profiles, column.strip())).cast(pl.String) == value.strip()
    chosen = profiles.metadata.select(is_control.fill_null(value=False).alias("chosen"))["chosen"]
    if not chosen.any():
        values = profiles.metadata[require_column(profiles, column.strip())].cast(pl.String)
        there = values.drop_nulls().unique().sort().to_list()
        found = f"{profiles.source}: no well has {column.strip()} = {value.strip()}"
        raise InputError(found, hint=f"{meant(value.strip(), there)}values there: {shortened(there)}")
    known = profiles.metadata.get_column(CONTROL_TYPE, default=pl.Series(CONTROL_TYPE, [None] * len(chosen)))
    marks = control_marks(known)
    others = pl.when(marks != NEGATIVE_CONTROL).then(marks)
    marked = pl.when(chosen).then(pl.lit(NEGATIVE_CONTROL)).otherwise(others)
    return replace(profiles, metadata=profiles.metadata.with_columns(marked.alias(CONTROL_TYPE)))


def require_column(profiles: Profiles, column: str) -> str:
    """Find a metadata column by its name, with or without the prefix."""
    for name in (column, f"{METADATA_PREFIX}{column}"):
        if name in profiles.metadata.columns:
            return name
    found = f"{profiles.source} has no column {column}"
    columns = profiles.metadata.columns
    raise InputError(found, hint=f"{meant(column, columns)}it has {shortened(columns, most=MOST_COLUMNS)}")
