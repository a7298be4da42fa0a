"""Wells in two dimensions, for the eye."""

import logging
import warnings
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from threadpoolctl import threadpool_limits

from cellvim.evaluate.neighbors import nearest_rows
from cellvim.evaluate.retrieval import unit_rows
from cellvim.statistics import generator_for

logger = logging.getLogger(__name__)

FEWEST_WELLS = 5
MOST_WELLS = 10_000
NEIGHBORS = 15


def principal_components(features: Float[ndarray, "wells features"]) -> Float32[ndarray, "wells 2"]:
    """First two principal components of unit profiles, signed so that the largest loading is positive.

    Profiles are scaled to length 1 first: retrieval compares directions, and so does the map.
    """
    centred = unit_rows(features.astype(np.float64))
    centred = centred - centred.mean(axis=0)
    left, singular, loadings = np.linalg.svd(centred, full_matrices=False)
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(axis=1)[:, None], axis=1)[:, 0]
    components = left * singular * np.where(largest < 0, -1, 1)
    coordinates = np.zeros((len(features), 2), np.float32)
    coordinates[:, : min(2, components.shape[1])] = components[:, :2]
    return coordinates


def umap_coordinates(
    features: Float[ndarray, "wells features"], pca: Float32[ndarray, "wells 2"], *, seed: int
) -> Float32[ndarray, "wells 2"] | None:
    """UMAP of unit profiles, started from their principal components; the same on every run.

    Returns:
        Coordinates; None with fewer than five wells, or if all wells are alike. Of more than `MOST_WELLS` wells
        a random sample is placed, and the others are NaN: that many take a minute, and are more than an eye sees.
    """
    if len(features) < FEWEST_WELLS or np.ptp(pca) < 1e-6:
        return None
    if len(features) > MOST_WELLS:
        drawn = np.sort(generator_for(seed, "umap").choice(len(features), MOST_WELLS, replace=False))
        coordinates = np.full((len(features), 2), np.nan, np.float32)
        sampled = umap_coordinates(features[drawn], pca[drawn], seed=seed)
        if sampled is not None:
            coordinates[drawn] = sampled
        return coordinates
    count = min(NEIGHBORS, len(features) - 1)
    nearest, similarity = nearest_rows(features, np.arange(len(features)), count - 1)
    itself = np.arange(len(features))[:, None]
    neighbors = np.concatenate([itself, nearest], axis=1).astype(np.int32)
    distances = np.concatenate([np.zeros_like(itself), np.sqrt(np.maximum(2 - 2 * similarity, 0))], axis=1)
    # UMAP's compiler sets the number of OpenMP threads of the whole process; the limit puts it back.
    with threadpool_limits(1), warnings.catch_warnings():
        # UMAP warns that a seed makes it run on one thread, and that these neighbours cannot place new wells.
        warnings.simplefilter("ignore")
        mapper = _import_umap().UMAP(
            n_neighbors=count,
            init=(10 * pca / np.abs(pca).max()).astype(np.float32),
            random_state=seed,
            n_jobs=1,
            # Exact neighbours of our own, which also spares seconds of compiling UMAP's search.
            precomputed_knn=(neighbors, distances.astype(np.float32), None),
            force_approximation_algorithm=True,
        )
        coordinates = mapper.fit_transform(unit_rows(features.astype(np.float32)))
    return np.asarray(coordinates, np.float32)


@cache
def _import_umap() -> Any:
    """UMAP, told to keep on disk what it compiles, which would take five seconds of every process that draws a map."""
    from cellvim.evaluate.compiling import compiled_code_kept

    with compiled_code_kept():
        import umap
        from umap import layouts, umap_

        for module in (umap_, layouts):
            for function in vars(module).values():
                if hasattr(function, "enable_caching"):
                    function.enable_caching()
    return umap
