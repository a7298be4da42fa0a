"""From wells to one profile per perturbation, or per whatever columns say."""

from collections.abc import Sequence

import polars as pl

from cellvim.config import Average
from cellvim.profiles.aggregate import average_rows, sorted_by
from cellvim.profiles.schema import Profiles

REPLICATES = "Metadata_Replicates"


def consensus(profiles: Profiles, by: Sequence[str], average: Average = "mean") -> Profiles:
    """Average the wells that agree in some columns; each of them counts the same.

    Rows come out sorted by those columns. Metadata that differ within a group are dropped;
    `Metadata_Replicates` says how many wells went into each profile. Wells that lack one of the values go.

    Args:
        profiles: One row per well.
        by: Columns of the metadata, for example ``["Metadata_Perturbation"]``.
        average: ``mean``, which commutes with every rotation of the features, or ``median``, feature by feature.
    """
    keys = list(by)
    has_all = profiles.metadata.select(pl.all_horizontal(pl.col(keys).is_not_null())).to_series().to_numpy()
    kept = profiles.only(has_all.nonzero()[0])
    return average_rows(sorted_by(kept, keys), keys, average, count_name=REPLICATES)
