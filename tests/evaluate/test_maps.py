"""Maps and neighbours: the same on every run, and true to the distances."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from cellvim.config import EvaluateSettings
from cellvim.evaluate.embedding_map import principal_components, umap_coordinates
from cellvim.evaluate.neighbors import MOST_QUERIES, montage_queries, nearest_rows, nearest_wells
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.similar import control_distance, similar_perturbations
from cellvim.evaluate.thumbnails import read_thumbnails
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


def test_of_very_many_wells_a_sample_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellvim.evaluate.embedding_map.MOST_WELLS", 20)
    features = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    pca = principal_components(features)
    first, second = (umap_coordinates(features, pca, seed=0) for _ in range(2))
    assert first is not None
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).all(axis=1).sum() == 20


def test_similar_perturbations_are_those_of_a_full_sort(make_screen: MakeScreen) -> None:
    profiles = make_screen(strengths=(1.0,) * 12)
    screen = Screen(profiles, profiles, EvaluateSettings(tables=(Path("x"),), out=Path("y")))
    table = similar_perturbations(screen, "mean")
    names = profiles.metadata["Metadata_Perturbation"].to_numpy()
    means = {
        name: profiles.features[(names == name) & ~profiles.is_control].astype(np.float64).mean(axis=0)
        for name in set(names[~profiles.is_control])
    }
    assert set(table["Metadata_Perturbation"]) == set(means)
    for (name,), own in table.group_by("Metadata_Perturbation"):
        cosine = {
            other: float(cosine_similarity(means[str(name)][None], mean[None])[0, 0])
            for other, mean in means.items()
            if other != name
        }
        expected = sorted(cosine, key=lambda other: -cosine[other])[:8]
        assert own.sort("rank")["neighbor"].to_list() == expected
        np.testing.assert_allclose(own.sort("rank")["similarity"], [cosine[o] for o in expected], atol=1e-5)


def test_distance_from_the_controls_is_that_of_a_plain_loop(make_screen: MakeScreen) -> None:
    screen = make_screen(strengths=(0.0, 30.0))
    plates = screen.metadata["Metadata_Plate"].to_numpy()
    distance = control_distance(screen)
    for row in range(len(distance)):
        controls = screen.features[(plates == plates[row]) & screen.is_control].astype(np.float64)
        difference = screen.features[row] - controls.mean(axis=0)
        assert distance[row] == pytest.approx(np.sqrt((difference**2).mean()), rel=1e-6)
    strong = (screen.metadata["Metadata_Perturbation"] == "drug 1").to_numpy()
    assert distance[strong].min() > distance[screen.is_control].max()
    alone = replace(
        screen, metadata=screen.metadata.with_columns(Metadata_ControlType=pl.lit(None, pl.String))
    )
    assert np.isnan(control_distance(alone)).all()


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    return bytes(imagecodecs.png_encode(noise))


@pytest.mark.parametrize("room", [10_000_000, 20_000, 0])
def test_pictures_keep_to_their_room_the_most_wanted_first(room: int, tmp_path: Path) -> None:
    wells = pl.DataFrame({"Metadata_Plate": "P", "Metadata_Well": [f"A{n:02d}" for n in range(1, 25)]})
    pngs = pl.Series("png", [picture(n) for n in range(24)])
    wells.with_columns(pngs).write_parquet(tmp_path / "t.thumbnails.parquet")
    found = read_thumbnails(tmp_path / "t.parquet", wells.reverse(), room)
    assert found is not None
    assert found["png"].bin.size().sum() <= room
    assert found["Metadata_Well"].to_list() == wells["Metadata_Well"].to_list()[24 - found.height :]
    if room == 10_000_000:
        assert found["png"].to_list() == pngs.to_list()
    elif room:
        assert 0 < found.height < 24
        assert all(png.startswith(b"\xff\xd8") for png in found["png"])


def test_umap_leaves_the_threads_of_the_process_alone() -> None:
    features = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    umap_coordinates(features, principal_components(features), seed=0)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
