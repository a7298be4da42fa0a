"""The same numbers as copairs 0.5.5 on tables without ties: average precision, its mean, p and q.

copairs computes similarities in double precision but keeps them in single precision, which moves a rank only where
two similarities are closer than that; the seeds here have no such pair.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.stats import false_discovery_control

from cellvim.config import EvaluateSettings
from cellvim.evaluate.consistency import consistency
from cellvim.evaluate.retrieval_tasks import run_retrieval
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.significance import benjamini_hochberg
from cellvim.profiles import Profiles

SAME = 1e-6
"""Average precisions of copairs come from sums in single precision."""
NULLS = 20_000
SAMPLED = 4 * 0.5 / NULLS**0.5 * 2**0.5
"""Four standard errors of the difference of two sampled p-values near 0.5."""
ACTIVE = 1.5
TARGETS = ("kinase", "channel", "receptor", "protease", "lipase", "ligase")

RULES = {
    "activity": {"pos_diffby": [], "neg_sameby": ["plate"], "neg_diffby": ["control"]},
    "distinctiveness": {"pos_diffby": [], "neg_sameby": ["plate"], "neg_diffby": ["pert"]},
    "replicate_retrieval": {"pos_diffby": ["plate"], "neg_sameby": [], "neg_diffby": ["pert"]},
}


@pytest.fixture(scope="module")
def screen() -> Screen:
    """Three plates of 16 perturbations and 6 controls, half of the perturbations active; used as it is."""
    rng = np.random.default_rng(7)
    names = [*(f"drug {number // 2}@{1 + number % 2} uM" for number in range(16)), *["DMSO"] * 6] * 3
    directions = ACTIVE * rng.normal(size=(16, 12)) * (np.arange(16) < 8)[:, None]
    features = rng.normal(size=(len(names), 12))
    labels: list[str | None] = []
    for row, name in enumerate(names):
        number = row % 22
        features[row] += directions[number] if number < 16 else 0
        drug = number // 2
        own = [TARGETS[drug % 3], TARGETS[3 + drug % 2]] if drug < 6 else [TARGETS[drug % 6]]
        labels.append(None if name == "DMSO" or drug == 7 else "|".join(own))
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": np.repeat(["P1", "P2", "P3"], 22),
            "Metadata_Well": [f"{'AB'[place // 12]}{place % 12 + 1:02}" for place in range(22)] * 3,
            "Metadata_Perturbation": names,
            "Metadata_Compound": [name.partition("@")[0] for name in names],
            "Metadata_ControlType": ["negcon" if name == "DMSO" else None for name in names],
            "Metadata_Target": labels,
        }
    )
    profiles = Profiles(
        metadata,
        features.astype(np.float32),
        tuple(f"emb_{index:04}" for index in range(12)),
        {},
        Path("screen.parquet"),
        "screen",
    )
    settings = EvaluateSettings(
        tables=(profiles.source,), out=Path("o"), normalize="none", null_size=NULLS, bootstraps=10
    )
    return Screen(profiles, profiles, settings)


def copairs_scores(screen: Screen, task: str, tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    from copairs.map import average_precision

    metadata = screen.raw.metadata
    table = pd.DataFrame(
        {
            "plate": metadata["Metadata_Plate"].to_numpy(),
            "well": metadata["Metadata_Well"].to_numpy(),
            "pert": metadata["Metadata_Perturbation"].to_numpy(),
            "control": screen.raw.is_control,
        }
    )
    features = screen.raw.features.astype(np.float64)
    if task == "distinctiveness":
        features, table = features[~table["control"]], table[~table["control"]].reset_index(drop=True)
    found = average_precision(table, features, pos_sameby=["pert"], progress_bar=False, **RULES[task])
    found = found[~found["control"]]
    return found, copairs_means(found, "pert", tmp_path)


def copairs_means(scores: pd.DataFrame, by: str, cache: Path) -> pd.DataFrame:
    from copairs.map import mean_average_precision

    settings = {"null_size": NULLS, "threshold": 0.05, "seed": 3, "progress_bar": False, "cache_dir": cache}
    return mean_average_precision(scores, [by], **settings).sort_values(by)


def assert_same_queries(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    columns = {
        "ap": "average_precision",
        "normalized_ap": "normalized_average_precision",
        "positives": "n_pos_pairs",
        "total": "n_total_pairs",
    }
    for own, other in columns.items():
        np.testing.assert_allclose(ours[own].to_numpy(), theirs[other].to_numpy(), atol=SAME)


def assert_same_groups(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    np.testing.assert_allclose(ours["map"], theirs["mean_average_precision"], atol=SAME)
    np.testing.assert_allclose(ours["normalized_map"], theirs["mean_normalized_average_precision"], atol=SAME)


def assert_same_p(ours: pl.DataFrame, theirs: pd.DataFrame) -> None:
    """Both from the share of larger rank lists: among all that there are, where ours are enumerated."""
    p, smallest = ours["p"].to_numpy(), ours["smallest_p"].to_numpy()
    larger = (p - smallest) / (1 - smallest)
    np.testing.assert_allclose(larger, theirs["p_value"] - 1 / (1 + NULLS), atol=SAMPLED)


@pytest.mark.parametrize("task", RULES)
def test_replicate_tasks_agree(screen: Screen, task: str, tmp_path: Path) -> None:
    queries, groups = copairs_scores(screen, task, tmp_path)
    ours = run_retrieval(screen, task)
    wells = ours.tables["wells"].sort("Metadata_Plate", "Metadata_Well")
    assert_same_queries(wells, queries.sort_values(["plate", "well"]))
    assert ours.rows["Metadata_Perturbation"].to_list() == groups["pert"].tolist()
    assert_same_groups(ours.rows, groups)
    assert_same_p(ours.rows, groups)


def labels_table(screen: Screen) -> tuple[pd.DataFrame, np.ndarray]:
    """Consensus profiles by their definition, with the labels of each; copairs wants some for every row."""
    metadata, features = screen.raw.metadata, screen.raw.features.astype(np.float64)
    labelled = metadata.filter(pl.col(str(screen.label_column)).is_not_null())
    names = sorted(set(labelled["Metadata_Perturbation"].to_list()))
    rows = [np.flatnonzero((metadata["Metadata_Perturbation"] == name).to_numpy()) for name in names]
    labels = [metadata[screen.label_column][int(own[0])].split("|") for own in rows]
    compounds = [name.partition("@")[0] for name in names]
    table = pd.DataFrame({"pert": names, "compound": compounds, "label": labels})
    return table, np.stack([features[own].mean(axis=0) for own in rows])


def test_consistency_with_several_labels_agrees(screen: Screen, tmp_path: Path) -> None:
    from copairs.map import multilabel

    ours = consistency(screen)
    table, features = labels_table(screen)
    theirs = multilabel.average_precision(
        table,
        features,
        pos_sameby=["label"],
        pos_diffby=["compound"],
        neg_sameby=[],
        neg_diffby=["label", "compound"],
        multilabel_col="label",
        progress_bar=False,
    )
    queries = ours.tables["perturbations"]
    theirs = theirs.sort_values(["pert", "label"])
    assert queries["Metadata_Perturbation"].to_list() == theirs["pert"].tolist()
    assert queries["label"].to_list() == theirs["label"].tolist()
    assert_same_queries(queries, theirs)
    groups = copairs_means(theirs, "label", tmp_path)
    assert ours.rows["label"].to_list() == groups["label"].tolist()
    np.testing.assert_allclose(ours.rows["map"], groups["mean_average_precision"], atol=SAME)
    # Where queries of a label differ in their numbers, copairs averages independent nulls: see `of_mean`.
    shapes = queries.group_by("label").agg(pl.struct("positives", "total").n_unique().alias("shapes"))
    alike = shapes.sort("label")["shapes"].to_numpy() == 1
    assert alike.any()
    assert_same_p(ours.rows.filter(alike), groups[alike])


def test_consistency_with_one_label_agrees(screen: Screen, tmp_path: Path) -> None:
    from copairs.map import average_precision

    first = pl.col("Metadata_Target").str.split("|").list.first().alias("Metadata_Target")
    metadata = screen.raw.metadata.with_columns(first)
    raw = Profiles(
        metadata, screen.raw.features, screen.raw.feature_names, {}, screen.raw.source, screen.raw.name
    )
    one = Screen(raw, raw, screen.settings)
    ours = consistency(one)
    table, features = labels_table(one)
    table = table.assign(label=table["label"].str[0])
    theirs = average_precision(
        table,
        features,
        pos_sameby=["label"],
        pos_diffby=["compound"],
        neg_sameby=[],
        neg_diffby=["label", "compound"],
        progress_bar=False,
    )
    theirs = theirs[theirs["n_pos_pairs"] > 0].sort_values("pert")
    assert_same_queries(ours.tables["perturbations"], theirs)
    groups = copairs_means(theirs, "label", tmp_path)
    assert ours.rows["label"].to_list() == groups["label"].tolist()
    assert_same_groups(ours.rows, groups)
    assert_same_p(ours.rows, groups)


@pytest.mark.parametrize("adjust", [benjamini_hochberg, false_discovery_control])
def test_q_values_agree(screen: Screen, adjust: Callable[[np.ndarray], np.ndarray], tmp_path: Path) -> None:
    """Of the p-values that copairs found itself."""
    groups = copairs_scores(screen, "replicate_retrieval", tmp_path)[1]
    np.testing.assert_allclose(adjust(groups["p_value"].to_numpy()), groups["corrected_p_value"], atol=1e-12)
