"""Small tables made in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.profiles import Profiles

MakeProfiles = Callable[..., Profiles]


@pytest.fixture(scope="session")
def make_profiles() -> MakeProfiles:
    def make(features: np.ndarray, **metadata: list[object]) -> Profiles:
        wells = [f"{'ABCDEFGHIJKLMNOP'[row // 24 % 16]}{row % 24 + 1:02}" for row in range(len(features))]
        columns = {"Plate": ["P"] * len(features), "Well": wells} | metadata
        return Profiles(
            metadata=pl.DataFrame({f"Metadata_{name}": values for name, values in columns.items()}),
            features=np.asarray(features, np.float32),
            feature_names=tuple(f"emb_{index:04}" for index in range(features.shape[1])),
            provenance={},
            source=Path("made.parquet"),
            name="made",
        )

    return make
