"""Histograms say the same as the pixels behind them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellvim.store.intensity import (
    PERCENTILES,
    clipped_moments,
    histograms_of,
    pack_histograms,
    percentiles_of,
    unpack_histograms,
)
from cellvim.store.layout import inner_chunk_px

images = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda dtype: arrays(dtype, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
)


@given(images)
def test_percentiles_are_numpys(pixels: np.ndarray) -> None:
    for plane, counts in zip(pixels, histograms_of(pixels), strict=True):
        expected = np.percentile(plane, PERCENTILES)
        np.testing.assert_allclose(list(percentiles_of(counts).values()), expected, rtol=1e-12)


@given(images, st.floats(0, 300), st.floats(0, 300))
def test_moments_are_those_of_the_clipped_pixels(pixels: np.ndarray, low: float, width: float) -> None:
    clipped = np.clip(pixels.astype(np.float64), low, low + width)
    for plane, counts in zip(clipped, histograms_of(pixels), strict=True):
        moments = clipped_moments(counts, (low, low + width))
        np.testing.assert_allclose(moments, (plane.mean(), plane.std()), rtol=1e-9, atol=1e-9)


@given(images)
def test_packing_loses_nothing(pixels: np.ndarray) -> None:
    counts = histograms_of(pixels)
    channels = [str(number) for number in range(len(pixels))]
    np.testing.assert_array_equal(unpack_histograms(pack_histograms(counts), channels), counts)


@given(st.integers(1, 5000))
def test_inner_chunks_tile_the_field(side: int) -> None:
    chunk = inner_chunk_px(side)
    count = -(-side // chunk)
    assert 1 <= chunk <= min(side, 384)
    # Never a chunk more than needed, and at most one pixel per chunk reaches past the edge.
    assert count * chunk - side < count


@pytest.mark.parametrize(("side", "chunk"), [(640, 320), (904, 226), (1080, 270), (1224, 306), (2160, 270)])
def test_common_cameras_get_chunks_that_divide_the_field(side: int, chunk: int) -> None:
    assert inner_chunk_px(side) == chunk
