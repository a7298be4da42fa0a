"""Maps and neighbours: the same on every run, and true to the distances."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from cellvim.evaluate.embedding_map import principal_components, umap_coordinates
from cellvim.evaluate.neighbors import MOST_QUERIES, montage_queries, nearest_rows, nearest_wells
from cellvim.profiles import Profiles

MakeScreen = Callable[..., Profiles]


def test_principal_components_keep_the_distances_of_a_plane() -> None:
    """Unit profiles that lie in a plane lose nothing."""
    angle = np.linspace(0, 3, 20)
    plane = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ np.linalg.qr(np.eye(5) + 0.3)[0][:2]
    pca = principal_components(plane)
    before = np.linalg.norm(plane[:, None] - plane, axis=2)
    np.testing.assert_allclose(np.linalg.norm(pca[:, None] - pca, axis=2), before, atol=1e-5)


def test_the_sign_of_a_component_does_not_depend_on_the_order_of_wells() -> None:
    features = np.random.default_rng(0).normal(size=(30, 7))
    np.testing.assert_allclose(
        principal_components(features[::-1])[::-1], principal_components(features), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (4, 5)])
def test_few_wells_have_components_but_no_umap(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape)
    pca = principal_components(features)
    assert pca.shape == (shape[0], 2)
    assert umap_coordinates(features, pca, seed=0) is None


def test_wells_that_are_all_alike_have_no_umap() -> None:
    features = np.ones((20, 3))
    pca = principal_components(features)
    assert np.abs(pca).max() < 1e-6
    assert umap_coordinates(features, pca, seed=0) is None


@pytest.mark.parametrize("wells", [5, 30])
def test_umap_is_the_same_on_every_run_and_keeps_clusters_apart(wells: int) -> None:
    rng = np.random.default_rng(1)
    is_left = np.arange(wells) < wells // 2
    features = rng.normal(size=(wells, 8)) + np.where(is_left[:, None], 9, -9) * np.arange(8)
    pca = principal_components(features)
    first, second = (umap_coordinates(features, pca, seed=3) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)
    gap = np.linalg.norm(first[is_left].mean(0) - first[~is_left].mean(0))
    assert wells == 5 or gap > 2 * first[is_left].std()


def test_nearest_rows_are_those_of_a_full_sort() -> None:
    features = np.random.default_rng(2).normal(size=(40, 6))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T - 3 * np.eye(40)
    nearest, found = nearest_rows(features, np.arange(40), 5)
    np.testing.assert_array_equal(nearest, np.argsort(-similarity, axis=1)[:, :5])
    np.testing.assert_allclose(found, -np.sort(-similarity, axis=1)[:, :5], atol=1e-9)


def test_ties_go_to_the_first_rows() -> None:
    nearest, found = nearest_rows(np.ones((9, 3)), np.array([4]), 5)
    assert nearest.tolist() == [[0, 1, 2, 3, 5]]
    np.testing.assert_allclose(found, 1)


def test_neighbours_of_a_strong_perturbation_are_its_replicates(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(20.0, 20.0), plates=1, replicates=6)
    table = nearest_wells(screen, np.array([0]))
    assert table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert set(table["neighbor_well"]) == {"A02", "A03", "A04", "A05", "A06"}
    assert (table["similarity"].diff().drop_nulls() <= 0).all()


def test_a_montage_has_one_well_per_perturbation_strongest_first_and_controls(
    make_screen: MakeScreen,
) -> None:
    screen = make_screen(strengths=(1.0,) * 60, plates=1, replicates=1, controls=6)
    strength = np.full(66, np.nan)
    strength[[40, 10]] = [0.9, 0.5]
    queries = montage_queries(screen, strength)
    assert queries[:2].tolist() == [40, 10]
    assert queries.size == MOST_QUERIES
    assert screen.is_control[queries].sum() == 4


def test_empty_wells_are_neither_asked_about_nor_found(make_screen: MakeScreen) -> None:
    """Two empty wells, one of them named, that are copies of a treated well."""
    screen = make_screen(strengths=(4.0, 4.0), plates=1, replicates=4)
    copies = screen.metadata[[0, 0]].with_columns(
        pl.Series("Metadata_Well", ["H01", "H02"]),
        pl.Series("Metadata_Perturbation", ["nothing", None]),
        pl.Series("Metadata_ControlType", ["empty", None], pl.String),
    )
    metadata = pl.concat([copies, screen.metadata])
    features = np.concatenate([screen.features[[0, 0]], screen.features])
    padded = replace(screen, metadata=metadata, features=features)
    queries = montage_queries(padded, np.full(metadata.height, np.nan))
    assert metadata["Metadata_Perturbation"][queries].head(2).to_list() == ["drug 0", "drug 1"]
    found = nearest_wells(padded, queries)
    assert not {"H01", "H02"} & set(found["neighbor_well"])
    expected = nearest_wells(screen, queries - 2)
    assert found.equals(expected)


def test_umap_leaves_the_threads_of_the_process_alone() -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    umap_coordinates(features, principal_components(features), seed=0)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
