"""Our scan against the package mamba-ssm, whose own code judges the equation and the adapter's order of axes."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.mamba_parts import bare_mamba_ssm
from cellvim_kernels import ScanInputs
from cellvim_kernels.selective_scan import naive_selective_scan
from cellvim_kernels.selective_scan.mamba import (
    MambaUnavailableError,
    mamba_selective_scan,
    why_unavailable,
)

FOLDER = Path(__file__).parents[2] / ".venv-mamba"
TOLERANCE = 2e-5
"""Relative error in the 2-norm: mamba-ssm's scan in plain torch is float32 throughout."""


@pytest.fixture
def _no_mamba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """mamba-ssm's interface, its compiled scan replaced by its own scan in plain torch."""
    if not FOLDER.exists():
        pytest.skip(f"{FOLDER.name}/ is absent: make judges")
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    package = bare_mamba_ssm()
    assert package is not None
    assert package.__path__ == [str(FOLDER / "mamba_ssm")]
    # Compiled for a GPU, and Triton's: the scan in plain torch needs neither.
    norm = ModuleType("mamba_ssm.ops.triton.layer_norm")
    norm._layer_norm_fwd = None  # type: ignore[attr-defined]
    stand_ins = {"mamba_ssm": package, norm.__name__: norm}
    for name, module in stand_ins.items() | {("selective_scan_cuda", ModuleType("selective_scan_cuda"))}:
        monkeypatch.setitem(sys.modules, name, module)
    loaded = import_module("mamba_ssm.ops.selective_scan_interface")
    monkeypatch.setattr(loaded, "selective_scan_fn", loaded.selective_scan_ref)
    yield loaded
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("mamba_ssm", "einops"):
            del sys.modules[name]


def draw(length: int, *, batch: int = 2, width: int = 6, state: int = 4) -> ScanInputs:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    size = (2, batch, length)
    inputs = ScanInputs(
        u=normal(*size, width),
        delta=torch.nn.functional.softplus(normal(*size, width)),
        A=-normal(2, width, state).exp(),
        B=normal(*size, state),
        C=normal(*size, state),
    )
    return ScanInputs(*(tensor.requires_grad_() for tensor in inputs))


def output_and_gradients(y: Tensor, inputs: ScanInputs) -> list[Tensor]:
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y).cos()
    return [y, *torch.autograd.grad((y * direction).sum(), inputs)]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for mine, truth in zip(actual, expected, strict=True):
        assert mine.shape == truth.shape
        error = (mine.double() - truth.double()).norm() / truth.double().norm().clamp(min=1e-12)
        assert error < TOLERANCE


@pytest.mark.usefixtures("interface")
@pytest.mark.parametrize("length", [1, 2, 7, 33])
def test_the_equation_and_mamba_ssm_agree_both_ways_with_all_gradients(length: int) -> None:
    inputs = draw(length)
    exact = ScanInputs(*(tensor.detach().double().requires_grad_() for tensor in inputs))
    expected = output_and_gradients(naive_selective_scan(exact)[0], exact)
    assert_close(output_and_gradients(mamba_selective_scan(inputs), inputs), expected)


def test_without_the_flips_they_would_not_agree(interface: ModuleType) -> None:
    """Negative control: mamba-ssm's scan of the backward direction as it lies is something else."""
    inputs = draw(7)
    u, delta, A, B, C = (tensor[1] for tensor in inputs)
    rows = [tensor.transpose(1, 2) for tensor in (u, delta)]
    unflipped = interface.selective_scan_ref(*rows, A, B.transpose(1, 2), C.transpose(1, 2)).transpose(1, 2)
    expected = naive_selective_scan(inputs)[0][1]
    assert (unflipped - expected).norm() > 0.1 * expected.norm()


def test_the_step_is_given_and_stays_as_it_is(interface: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second softplus, no D, no gate; rows along the channels, side by side in memory."""
    seen: list[tuple[tuple[Tensor, ...], dict[str, Any]]] = []

    def recording_scan(*tensors: Tensor, **options: Any) -> Tensor:
        seen.append((tensors, options))
        return torch.zeros_like(tensors[0])

    monkeypatch.setattr(interface, "selective_scan_fn", recording_scan)
    inputs = draw(5, batch=3)
    assert mamba_selective_scan(inputs).shape == inputs.u.shape
    for direction, (tensors, options) in enumerate(seen):
        u, delta, A, B, C = tensors
        assert [tuple(tensor.shape) for tensor in tensors] == [
            (3, 6, 5),
            (3, 6, 5),
            (6, 4),
            (3, 4, 5),
            (3, 4, 5),
        ]
        assert all(tensor.is_contiguous() for tensor in (u, delta, B, C))
        assert torch.equal(A, inputs.A[direction])
        assert options == {"delta_softplus": False}
    assert len(seen) == 2


@pytest.mark.usefixtures("interface")
def test_a_loaded_package_is_of_use_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_unavailable() == "PyTorch sees no NVIDIA GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert why_unavailable() is None


@pytest.mark.usefixtures("_no_mamba")
def test_without_the_package_the_error_says_what_to_do() -> None:
    with pytest.raises(
        MambaUnavailableError, match=r"pip install --no-build-isolation 'cellvim\[mamba\]'"
    ) as caught:
        mamba_selective_scan(draw(2))
    assert isinstance(caught.value, ImportError)
    assert caught.value.reason == why_unavailable() != ""
