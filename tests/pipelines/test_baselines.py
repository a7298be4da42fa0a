"""Baselines on drawn images whose answers are known."""

import numpy as np
import pytest
from skimage.draw import disk

from pipelines.baselines import intensity_statistics, rings_around, segment_nuclei, translocation_features

CENTERS = [(30, 30), (30, 90), (40, 160), (100, 40), (100, 100), (150, 60), (150, 150)]
RADIUS = 10
CHANNELS = ("GFP", "DNA")


def picture(*, inside: float, around: float, noise: float = 1.0) -> np.ndarray:
    """Seven round cells: nuclei of 10 px in a cytoplasm of 22 px, protein levels as given."""
    pixels = np.full((2, 200, 200), 5.0)
    for center in CENTERS:
        pixels[0][disk(center, 22, shape=(200, 200))] = around
    for center in CENTERS:
        pixels[0][disk(center, RADIUS)] = inside
        pixels[1][disk(center, RADIUS)] = 120
    pixels += np.random.default_rng(0).normal(0, noise, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_seven_drawn_nuclei_are_counted_and_measured() -> None:
    features = translocation_features(picture(inside=40, around=80), CHANNELS)
    assert features["nuclei_count"] == 7
    assert features["nuclear_area"] == pytest.approx(np.pi * RADIUS**2, rel=0.12)
    assert features["nuclear_eccentricity"] < 0.3
    assert features["nuclear_solidity"] > 0.9
    assert len(features) == 16


def test_touching_nuclei_are_two() -> None:
    dna = np.zeros((80, 80))
    dna[disk((40, 30), 10)] = 100
    dna[disk((40, 47), 10)] = 100
    assert segment_nuclei(dna).max() == 2


def test_specks_are_no_nuclei() -> None:
    dna = np.zeros((80, 80))
    dna[disk((40, 30), 10)] = 100
    dna[disk((10, 60), 2)] = 100
    assert segment_nuclei(dna).max() == 1


def test_the_ratio_follows_the_protein_into_the_nucleus() -> None:
    outside = translocation_features(picture(inside=40, around=80), CHANNELS)
    within = translocation_features(picture(inside=160, around=40), CHANNELS)
    assert outside["protein_nuclear_ratio"] == pytest.approx(np.log2(36 / 76), abs=0.15)
    assert within["protein_nuclear_ratio"] == pytest.approx(np.log2(156 / 36), abs=0.15)
    assert (outside["protein_nuclear_share"], within["protein_nuclear_share"]) == (0, 1)
    assert outside["protein_dna_correlation"] < 0 < within["protein_dna_correlation"]


def test_channel_order_does_not_matter() -> None:
    pixels = picture(inside=40, around=80)
    assert translocation_features(pixels[::-1], CHANNELS[::-1]) == translocation_features(pixels, CHANNELS)


def test_rings_enter_no_nucleus_and_keep_a_gap() -> None:
    nuclei = segment_nuclei(picture(inside=40, around=80)[1].astype(float))
    ring = rings_around(nuclei)
    assert set(np.unique(ring)) == set(np.unique(nuclei))
    assert not ((ring > 0) & (nuclei > 0)).any()


def test_an_empty_field_counts_zero_and_invents_nothing() -> None:
    features = translocation_features(np.full((2, 64, 64), 7, np.uint8), CHANNELS)
    assert features["nuclei_count"] == 0
    assert np.isnan(features["nuclear_area"])
    assert np.isnan(features["protein_nuclear_ratio"])


def test_intensity_statistics_are_numpys() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (2, 50, 40)).astype(np.uint8)
    features = intensity_statistics(pixels, CHANNELS)
    assert len(features) == 14
    assert features["DNA_mean"] == pytest.approx(pixels[1].mean())
    assert features["GFP_sd"] == pytest.approx(pixels[0].std())
    assert features["GFP_p90"] == pytest.approx(np.percentile(pixels[0], 90))
