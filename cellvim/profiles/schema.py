"""Profile tables as files: `Metadata_*` columns say what a row is, every other column is a feature."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float32, Integer
from numpy import ndarray

from cellvim.errors import InputError, NotFoundError

logger = logging.getLogger(__name__)

METADATA_PREFIX = "Metadata_"
PROVENANCE_KEY = b"cellvim"
"""Key of a Parquet file's metadata under which a table says how it was made."""
PLATE, WELL, SITE = "Metadata_Plate", "Metadata_Well", "Metadata_Site"
PERTURBATION, CONTROL_TYPE = "Metadata_Perturbation", "Metadata_ControlType"
NEGATIVE_CONTROL, EMPTY = "negcon", "empty"

SEPARATORS = {".csv": ",", ".csv.gz": ",", ".tsv": "\t", ".tsv.gz": "\t", ".txt": "\t"}
ANNDATA = ".h5ad"
SUFFIXES = (".parquet", ".pq", ANNDATA, *SEPARATORS)
THUMBNAILS = ".thumbnails.parquet"

LONGEST_NAME = 60
MOST_MEANT = 3


@dataclass(frozen=True)
class Profiles:
    """Rows of features with what is known about each row.

    Args:
        metadata: One row per profile, `Metadata_*` columns only; plates and wells are text, wells like `A01`.
        features: Finite values, one row per profile.
        feature_names: Names of the feature columns.
        provenance: What the writer of the table said about the model that made it; empty for foreign tables.
        source: File that the table came from.
        name: Short name, for charts and messages.
        notes: How the table was read, one sentence each.
        warnings: What was left out on the way here, one sentence each.
    """

    metadata: pl.DataFrame
    features: Float32[ndarray, "wells features"]
    feature_names: tuple[str, ...]
    provenance: dict[str, Any]
    source: Path
    name: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_control(self) -> Bool[ndarray, " wells"]:
        """True for negative controls; False everywhere if the table does not say."""
        if CONTROL_TYPE not in self.metadata.columns:
            return np.zeros(self.metadata.height, bool)
        marks = self.metadata[CONTROL_TYPE].cast(pl.String)
        return (marks == NEGATIVE_CONTROL).fill_null(value=False).to_numpy()

    @property
    def plates(self) -> tuple[str, ...]:
        return tuple(self.metadata[PLATE].unique().sort())

    def only(self, rows: Integer[ndarray, " kept"]) -> "Profiles":
        """Some of the rows, in the given order."""
        return replace(self, metadata=self.metadata[rows], features=self.features[rows])

    def noting(self, note: str) -> "Profiles":
        """Add a note, and log it."""
        logger.info("%s: %s", self.name, note)
        return replace(self, notes=(*self.notes, note))

    def warning(self, warning: str) -> "Profiles":
        """Add what a reader must know before trusting a number, and log it."""
        logger.warning("%s: %s", self.name, warning)
        return replace(self, warnings=(*self.warnings, warning))

    def with_features(
        self, features: Float[ndarray, "wells kept"], kept: Bool[ndarray, " features"]
    ) -> "Profiles":
        """Replace the features by new values of those that are kept."""
        names = tuple(name for name, is_kept in zip(self.feature_names, kept, strict=True) if is_kept)
        return replace(self, features=features.astype(np.float32), feature_names=names)


def table_files(path: Path) -> list[Path]:
    """Files of a table: itself, or those of a folder in the order of their names.

    Of a folder, all that end like a table count, except `.txt`, which is rather a note, `NAME.thumbnails.parquet`,
    `NAME.h5ad` where the same table is there as `NAME.parquet`, and hidden files.

    Raises:
        NotFoundError: There is no such file, or no table in the folder.
    """
    if not path.is_dir():
        require_file(path)
        return [path]
    endings = tuple(suffix for suffix in SUFFIXES if suffix != ".txt")
    named = [
        file
        for file in path.iterdir()
        if file.name.lower().endswith(endings) and not file.name.startswith(".") and file.is_file()
    ]
    files = [file for file in named if not file.name.endswith(THUMBNAILS) and not is_copy(file)]
    if not files:
        hint = f"give a file, or a folder with files, ending in {', '.join(endings)}"
        raise NotFoundError(path, expected="profile table in the folder", hint=hint)
    return sorted(files, key=lambda file: file.name)


def without_pictures(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Tables among some files: a shell's `blocks.block*.parquet` names the pictures beside them, too.

    Raises:
        InputError: All are pictures.
    """
    tables = tuple(path for path in paths if not path.name.endswith(THUMBNAILS))
    if not tables:
        found = f"{paths[0]} holds pictures of wells, no profiles"
        raise InputError(found, hint=f"give the table beside it, which is named without {THUMBNAILS}")
    return tables


def is_copy(file: Path) -> bool:
    return file.suffix == ANNDATA and file.with_suffix(".parquet").is_file()


def require_file(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(
            path, expected="profile table", hint=f"check the path; tables end in {', '.join(SUFFIXES)}"
        )


def thumbnails_files(table: Path) -> list[Path]:
    """Pictures that lie beside a table, or beside the tables of a folder; only those that are there."""
    files = table_files(table) if table.is_dir() else [table]
    return [path for path in map(thumbnails_path, files) if path.is_file()]


def thumbnails_path(table: Path) -> Path:
    """``NAME.thumbnails.parquet`` beside the table, whether it is there or not."""
    return table.with_name(f"{table_name(table)}{THUMBNAILS}")


def table_name(path: Path) -> str:
    """Name of a file without folder and ending, or of a folder."""
    if path.is_dir():
        return path.resolve().name
    suffix = next(
        (known for known in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(known)), ""
    )
    return path.name.removesuffix(suffix)


def first_present(names: tuple[str, ...], metadata: pl.DataFrame) -> str | None:
    return next((name for name in names if name in metadata.columns), None)


def meant(wrong: str, names: Sequence[str]) -> str:
    """Ask whether one of a few like names was meant, as the beginning of a hint; nothing where none is like it.

    Case and the prefix `Metadata_` make no difference, and a name that holds the other whole is like it.
    """
    plain = {name: name.removeprefix(METADATA_PREFIX).casefold() for name in names}
    sought = wrong.removeprefix(METADATA_PREFIX).casefold()
    holding = [
        name for name, spelt in plain.items() if sought == spelt or (len(sought) > 2 and sought in spelt)
    ]
    close = get_close_matches(sought, set(plain.values()), n=MOST_MEANT)
    alike = [name for spelt in close for name in plain if plain[name] == spelt]
    found = list(dict.fromkeys([*alike, *holding]))[:MOST_MEANT]
    return f"did you mean {' or '.join(shortened([name]) for name in found)}? " if found else ""


def shortened(names: list[str], *, most: int = 8) -> str:
    """List a few names, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names[:most]]
    return (", ".join(shown) or "no such columns") + more
