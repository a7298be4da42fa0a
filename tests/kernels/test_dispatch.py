"""Choice of the backend by CELLVIM_KERNEL."""

import logging

import pytest
import torch

from cellvim_kernels import Grid, MixerWeights, UnknownBackendError, chosen_backend, dispatch, pooled_mixer


@pytest.fixture(autouse=True)
def _forget_earlier_choices() -> None:
    dispatch._resolved.cache_clear()


@pytest.mark.parametrize(("wanted", "chosen"), [("auto", "torch"), ("torch", "torch"), ("naive", "naive")])
def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch, wanted: str, chosen: str) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", wanted)
    assert chosen_backend() == chosen


def test_without_the_variable_it_is_automatic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLVIM_KERNEL", raising=False)
    assert chosen_backend() == "torch"


def test_an_unknown_backend_is_refused_and_the_known_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "cuda")
    with pytest.raises(UnknownBackendError, match=r"CELLVIM_KERNEL=cuda is none of auto, torch, naive"):
        chosen_backend()


def test_the_choice_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "naive")
    with caplog.at_level(logging.INFO, logger="cellvim_kernels"):
        chosen_backend()
        chosen_backend()
    assert [record.getMessage() for record in caplog.records] == [
        "kernel backend: naive (CELLVIM_KERNEL=naive)"
    ]


def test_backends_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 4), (2, 4), (2, 5, 4), (2, 4, 1), (2, 4), (2, 4, 2), (2, 4), (4,), (4,)]
    weights = MixerWeights(*(torch.randn(shape, generator=generator) for shape in shapes))
    xz = torch.randn(1, 6, 8, generator=generator)
    results = []
    for backend in ("naive", "torch"):
        monkeypatch.setenv("CELLVIM_KERNEL", backend)
        results.append(pooled_mixer(xz, weights, Grid(2, 3, 1)))
    torch.testing.assert_close(*results)
