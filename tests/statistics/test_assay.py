"""Z' against its formula."""

import numpy as np
import pytest

from cellvim.statistics import z_prime


def test_z_prime_is_its_formula_and_falls_with_noise() -> None:
    negative, positive = np.array([-1.0, 0.0, 1.0]), np.array([9.0, 10.0, 11.0])
    assert z_prime(negative, positive) == pytest.approx(1 - 3 * 2 / 10)
    assert z_prime(negative * 2, positive) < z_prime(negative, positive)
    assert z_prime(negative, negative) == float("-inf")
