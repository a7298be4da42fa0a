"""What the tests of all kernels share."""

from collections.abc import Iterator

import pytest
import torch

from tests.kernels.interpreter import patch_once_per_launch

patch_once_per_launch()


@pytest.fixture
def _poisoned_memory() -> Iterator[None]:
    """Fill every torch.empty with NaN, so that a value read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
