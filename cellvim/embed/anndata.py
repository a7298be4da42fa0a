"""The finished table once more as AnnData, for scanpy and its relatives; group of rows by group of rows."""

import importlib.util
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from cellvim.atomic import write_atomically
from cellvim.embed.writer import read_metadata
from cellvim.errors import OutputExistsError, UsageError
from cellvim.profiles.schema import METADATA_PREFIX

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

KEY = "cellvim"
ROW_KEYS = ("Plate", "Well", "Site", "CropTop", "CropLeft", "ObjectNumber")
"""What names a row, as far as the table has it, in `obs_names`."""


def require_anndata() -> None:
    """Check that the extra is installed.

    Raises:
        UsageError: It is not.
    """
    if importlib.util.find_spec("anndata") is None:
        found = "--anndata, but anndata is not installed"
        raise UsageError(found, hint="pip install 'cellvim[anndata]'")


def anndata_path(table: Path) -> Path:
    """``NAME.h5ad`` beside the table."""
    return table.with_suffix(".h5ad")


def is_written(path: Path, identity: str, *, overwrite: bool) -> bool:
    """Whether the file is there and holds the table of this identity.

    Raises:
        OutputExistsError: Something else is there, and shall stay.
    """
    if not path.exists():
        return False
    if _identity_of(path) == identity:
        return True
    if overwrite and path.is_file():
        return False
    raise OutputExistsError(path, why="was not made from this table")


def warn_of_stale(path: Path, identity: str) -> None:
    """Say that the file beside a new table is an old one's; it is not ours to delete."""
    if path.exists() and _identity_of(path) != identity:
        logger.warning("%s was not made from this table; pass --anndata --overwrite to write it again", path)


def write_anndata(path: Path, table: Path) -> None:
    """Write features as X, metadata as obs, and the table's own account of itself as JSON in uns.

    Text becomes categories, and whatever AnnData has no type for becomes text. A slash in the name of a column, which
    its files cannot hold, becomes an underscore.

    Args:
        path: File to write.
        table: Finished Parquet table.
    """
    import pandas as pd
    from anndata import AnnData

    features = [name for name in pq.read_schema(table).names if not name.startswith(METADATA_PREFIX)]
    obs = _obs(pl.scan_parquet(table, glob=False).select(pl.col(f"^{METADATA_PREFIX}.*$")).collect())
    about = json.dumps(read_metadata(table), sort_keys=True, ensure_ascii=False)
    described = AnnData(obs=obs, var=pd.DataFrame(index=pd.Index(features, dtype=object)), uns={KEY: about})

    def fill(temporary: Path) -> None:
        described.write_h5ad(temporary)
        _append_features(temporary, table, features)

    write_atomically(path, fill)


def _append_features(path: Path, table: Path, features: Sequence[str]) -> None:
    """Add X, as AnnData's specification of an array on disk has it."""
    import h5py

    with h5py.File(path, "r+") as file, pq.ParquetFile(table) as source:
        file.pop("X", None)
        shape = (source.metadata.num_rows, len(features))
        matrix = file.create_dataset("X", shape=shape, dtype="float32")
        matrix.attrs["encoding-type"] = "array"
        matrix.attrs["encoding-version"] = "0.2.0"
        first = 0
        for group in range(source.num_row_groups):
            block = pl.DataFrame(source.read_row_group(group, columns=list(features)))
            matrix[first : first + block.height] = block.to_numpy()
            first += block.height


def _obs(metadata: pl.DataFrame) -> "pd.DataFrame":
    import pandas as pd

    names: dict[str, str] = {}
    for name in metadata.columns:
        free = name.replace("/", "_")
        while free in names.values():
            free += "_"
        names[name] = free
    columns = {free: _column(metadata[name]) for name, free in names.items()}
    return pd.DataFrame(columns, index=pd.Index(_row_names(metadata), dtype=object))


def _column(values: pl.Series) -> Any:
    import pandas as pd

    is_plain = values.dtype.is_numeric() or (values.dtype == pl.Boolean and not values.null_count())
    if is_plain and not values.dtype.is_decimal():
        return values.to_numpy()
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        values = pl.Series(
            [None if value is None else str(value) for value in values.to_list()], dtype=pl.String
        )
    text = values.cast(pl.String)
    # Of objects, as AnnData does not write pandas' newer kinds of text.
    categories = pd.Index(text.drop_nulls().unique().sort().to_list(), dtype=object)
    return pd.Categorical(np.array(text.to_list(), dtype=object), categories=categories)


def _row_names(metadata: pl.DataFrame) -> list[str]:
    """Plate, well and so on with slashes between; numbers where these do not tell rows apart."""
    keys = [f"{METADATA_PREFIX}{key}" for key in ROW_KEYS if f"{METADATA_PREFIX}{key}" in metadata.columns]
    names = metadata.select(pl.concat_str(keys, separator="/", ignore_nulls=True)).to_series()
    return names.to_list() if names.n_unique() == metadata.height else list(map(str, range(metadata.height)))


def _identity_of(path: Path) -> str | None:
    """Hash of what a file of ours was made from; None for others."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return dict(json.loads(file["uns"][KEY].asstr()[()])).get("identity")
    except (OSError, KeyError, ValueError, AttributeError, TypeError):
        return None
