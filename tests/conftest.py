"""What every test folder shares: the real plates kept beside the project, and deterministic Hypothesis."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("ci")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real plates, profile tables and published models; not part of the project."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs ../shared with the real plates and tables, which are not part of the project")
    return SHARED
