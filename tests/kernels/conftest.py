"""Triton kernels run in Triton's interpreter where there is no GPU: it has to know before they are imported."""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def _poisoned_memory() -> Iterator[None]:
    """Fill every torch.empty with NaN, so that a value read before it is written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
