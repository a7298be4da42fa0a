"""A made-up screen whose truth is known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from cellvim.profiles import Profiles

MakeScreen = Callable[..., Profiles]


@pytest.fixture(scope="session")
def make_screen() -> MakeScreen:
    return _make_screen


def _make_screen(
    *,
    strengths: Sequence[float] = (4.0, 4.0, 4.0, 0.0),
    plates: int = 2,
    replicates: int = 2,
    controls: int = 8,
    features: int = 24,
    seed: int = 0,
) -> Profiles:
    """Wells = plate offset + direction of the perturbation times its strength + correlated noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(len(strengths), features))
    mixing = rng.normal(size=(features, features)) / features**0.5
    rows = []
    values = []
    for plate in range(plates):
        offset = 2 * rng.normal(size=features)
        names = [f"drug {number}" for number in range(len(strengths)) for _ in range(replicates)]
        for well, name in enumerate([*names, *["DMSO"] * controls]):
            effect = 0 if name == "DMSO" else strengths[int(name[5:])] * directions[int(name[5:])]
            values.append(
                offset + effect + 2 * rng.normal(size=features) @ mixing + rng.normal(size=features)
            )
            control = "negcon" if name == "DMSO" else None
            moa = None if name == "DMSO" else f"moa {int(name[5:]) % 2}"
            rows.append((f"P{plate + 1}", f"{'ABCDEFGH'[well // 12]}{well % 12 + 1:02}", name, control, moa))
    columns = ("Plate", "Well", "Perturbation", "ControlType", "Moa")
    return Profiles(
        metadata=pl.DataFrame(rows, schema={f"Metadata_{name}": pl.String for name in columns}, orient="row"),
        features=np.array(values, np.float32),
        feature_names=tuple(f"emb_{index:04}" for index in range(features)),
        provenance={},
        source=Path("screen.parquet"),
        name="screen",
    )


@pytest.fixture(scope="session")
def write_screen() -> Callable[[Profiles, Path], Path]:
    def write(profiles: Profiles, path: Path) -> Path:
        features = pl.DataFrame(profiles.features, schema=list(profiles.feature_names))
        table = pl.concat([profiles.metadata, features], how="horizontal")
        if path.suffix == ".parquet":
            table.write_parquet(path)
        else:
            table.write_csv(path)
        return path

    return write
