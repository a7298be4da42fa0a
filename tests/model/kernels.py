"""Compute a test's model on one path, or skip it where the path is not there."""

import pytest

from cellvim_kernels import availability


def use_kernel(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose the path for models on the CPU; Triton needs its interpreter there."""
    reason = availability.why_absent(kernel, "cpu")
    if reason is not None:
        pytest.skip(f"{kernel}: {reason}")
    monkeypatch.setenv("CELLVIM_KERNEL", kernel)
