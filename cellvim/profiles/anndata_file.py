"""Profile tables as AnnData: features in X, and what is known about each row in obs."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from cellvim.errors import InputError, UsageError
from cellvim.profiles.schema import METADATA_PREFIX, PROVENANCE_KEY

if TYPE_CHECKING:
    import pandas as pd


def read_anndata(path: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Read a `.h5ad` file as a table: obs as `Metadata_*` columns, var names as features, values from X.

    A column of obs may have the prefix or not; where there are both, the one with the prefix counts.

    Raises:
        UsageError: anndata is not installed.
        InputError: The file cannot be read as AnnData, or has no X.
    """
    try:
        from anndata import read_h5ad
    except ImportError as error:
        found = f"{path} is an AnnData file, and anndata is not installed"
        raise UsageError(found, hint="pip install 'cellvim[anndata]'") from error
    from cellvim.profiles.table_file import provenance_from

    try:
        with warnings.catch_warnings():
            # What anndata thinks of names and of its own future is nothing that a reader of profiles can act on.
            warnings.simplefilter("ignore")
            content = read_h5ad(path)
            values = None if content.X is None else as_dense(content.X)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        found = f"{path} cannot be read as an AnnData file: {reason}"
        raise InputError(found, hint="check that the file is complete, then write it again") from error
    if values is None:
        found = f"{path} has no X, where the features should be"
        raise InputError(found, hint="put the features of each row into X, and write the file again")
    metadata = metadata_of(content.obs, path)
    names = [str(name) for name in content.var_names]
    require_feature_names(names, path)
    told = content.uns.get(PROVENANCE_KEY.decode())
    provenance = provenance_from(told, path) if isinstance(told, str) else {}
    features = pl.DataFrame(values, schema=names) if names else pl.DataFrame()
    return pl.concat([metadata, features], how="horizontal"), provenance


def as_dense(values: Any) -> np.ndarray:
    dense = values.toarray() if hasattr(values, "toarray") else values
    return np.asarray(dense, dtype=np.float32)


def metadata_of(rows: "pd.DataFrame", path: Path) -> pl.DataFrame:
    """Columns of obs with the prefix; categories become text."""
    prefixed = {str(name) for name in rows.columns if str(name).startswith(METADATA_PREFIX)}
    columns = {}
    for name in rows.columns:
        wanted = str(name) if str(name) in prefixed else f"{METADATA_PREFIX}{name}"
        if wanted == str(name) or wanted not in prefixed:
            columns[wanted] = as_series(rows[name], wanted, path)
    return pl.DataFrame(columns)


def as_series(column: "pd.Series[Any]", name: str, path: Path) -> pl.Series:
    if getattr(column.dtype, "kind", "O") in "biuf":
        return pl.Series(name, column.to_numpy())
    try:
        values, is_empty = column.tolist(), column.isna().tolist()
    except (TypeError, ValueError) as error:
        found = f"{path}: column {name} of obs holds neither numbers nor text"
        raise InputError(found, hint="write it as text, or leave it out") from error
    texts = [None if empty else str(value) for value, empty in zip(values, is_empty, strict=True)]
    return pl.Series(name, texts, pl.String)


def require_feature_names(names: list[str], path: Path) -> None:
    """Refuse names that occur twice, or that would make a feature look like metadata."""
    doubled = len(set(names)) < len(names)
    wrong = next((name for name in names if name.startswith(METADATA_PREFIX)), None)
    if doubled or wrong:
        what = f"is named {wrong}" if wrong else "has the name of another"
        found = f"{path}: a feature (var) {what}"
        raise InputError(
            found, hint=f"features need names of their own that do not begin with {METADATA_PREFIX}"
        )
