"""What the tests of all kernels share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def _poisoned_memory() -> Iterator[None]:
    """Fill every torch.empty with NaN, so that a value read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
