"""Normalisation against its definition, and where there is nothing to normalise."""

import numpy as np

from cellvim.dataset import normalize_pixels


def test_whole_field_comes_out_with_mean_zero_and_deviation_one() -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(100, 4000, size=(3, 40, 50), dtype=np.uint16)
    bounds = np.array([(0, 65535)] * 3, dtype=float)
    moments = np.stack([pixels.mean((1, 2)), pixels.std((1, 2))], axis=1)

    normalized = normalize_pixels(pixels, bounds, moments)

    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.std((1, 2)), 1, atol=1e-5)


def test_hot_pixels_are_clipped_at_the_plates_percentile() -> None:
    pixels = np.full((1, 4, 4), 100, np.uint16)
    pixels[0, 0, 0] = 65535
    normalized = normalize_pixels(pixels, np.array([[50.0, 200.0]]), np.array([[100.0, 10.0]]))
    assert normalized.max() == 10


def test_a_channel_without_contrast_is_zero_not_nan() -> None:
    pixels = np.full((1, 4, 4), 7, np.uint16)
    normalized = normalize_pixels(pixels, np.array([[7.0, 7.0]]), np.array([[7.0, 0.0]]))
    assert (normalized == 0).all()
