"""Choice of the backend by CELLVIM_KERNEL, and what happens when one is not there or does not work."""

import logging
import subprocess
import sys
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from cellvim_kernels import (
    Grid,
    MixerWeights,
    UnavailableBackendError,
    UnknownBackendError,
    add_rms_norm,
    availability,
    chosen_backend,
    describe_backends,
    dispatch,
    pooled_mixer,
    trial,
)
from cellvim_kernels.add_rms_norm import naive_add_rms_norm
from cellvim_kernels.trial import TrialError, try_out
from tests.kernels.mixer_cases import draw_tokens, draw_weights

needs_compiler = pytest.mark.skipif(
    availability.why_absent("cpp", "cpu") is not None, reason=str(availability.why_absent("cpp", "cpu"))
)


@pytest.fixture(autouse=True)
def _forget_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLVIM_KERNEL", raising=False)
    dispatch._resolved.cache_clear()


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def break_cpp(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(dispatch, "try_out", fail)


@pytest.mark.parametrize("wanted", ["torch", "naive", pytest.param("cpp", marks=needs_compiler)])
def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", wanted)
    assert chosen_backend("cpu") == wanted


@needs_compiler
def test_a_cpu_gets_the_fused_cpp_path() -> None:
    assert chosen_backend("cpu") == "cpp"
    assert describe_backends("cpu")["cpp"] == "in use"


def test_without_a_compiler_plain_torch_computes_and_nobody_is_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(availability, "_why_no_cpp", lambda _: "there is no C++ compiler")
    with caplog.at_level(logging.INFO, logger="cellvim_kernels"):
        assert chosen_backend("cpu") == "torch"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.records[0].getMessage().endswith("(CELLVIM_KERNEL=auto; cpp: there is no C++ compiler)")
    assert "there is no C++ compiler" in describe_backends("cpu")["cpp"]


def test_other_devices_get_plain_torch() -> None:
    assert chosen_backend("mps") == "torch"


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize(
    ("wanted", "device", "reason"),
    [
        ("triton", "cpu", "need an NVIDIA GPU"),
        ("cpp", "cuda", "on the CPU only"),
        ("mamba", "cpu", r"but .*(mamba_ssm|NVIDIA GPU)"),
        ("triton", "cuda", "PyTorch sees no NVIDIA GPU"),
    ],
)
def test_a_backend_that_is_not_there_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, wanted: str, device: str, reason: str
) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", wanted)
    with pytest.raises(UnavailableBackendError, match=reason) as caught:
        chosen_backend(device)
    assert caught.value.wanted == wanted


def test_an_unknown_backend_is_refused_and_the_known_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "cuda")
    known = r"CELLVIM_KERNEL=cuda is none of auto, triton, cpp, torch, mamba, naive"
    with pytest.raises(UnknownBackendError, match=known):
        chosen_backend()


def test_the_choice_is_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "naive")
    with caplog.at_level(logging.INFO, logger="cellvim_kernels"):
        chosen_backend()
        chosen_backend()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["kernel backend on cpu: naive (CELLVIM_KERNEL=naive)"]


@needs_compiler
def test_a_failed_compilation_warns_once_and_plain_torch_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    break_cpp(monkeypatch, RuntimeError("the compiler crashed\nlong output"))
    xz, weights = draw_tokens(1, 6, 4, dtype=torch.float32), draw_weights(4, dtype=torch.float32)
    with caplog.at_level(logging.WARNING, logger="cellvim_kernels"):
        first = pooled_mixer(xz, weights, Grid(2, 3, 1))
        pooled_mixer(xz, weights, Grid(2, 3, 1))
    assert [record.getMessage() for record in caplog.records] == [
        "cpp kernels do not work here, plain torch goes on: the compiler crashed"
    ]
    assert describe_backends("cpu")["cpp"] == "not available: the compiler crashed"
    monkeypatch.setenv("CELLVIM_KERNEL", "torch")
    assert torch.equal(first, pooled_mixer(xz, weights, Grid(2, 3, 1)))


@needs_compiler
def test_a_named_backend_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "cpp")
    break_cpp(monkeypatch, RuntimeError("the compiler crashed"))
    with pytest.raises(UnavailableBackendError, match="do not work here: the compiler crashed"):
        chosen_backend("cpu")


@needs_compiler
@pytest.mark.parametrize("damage", [0.01, float("nan")])
def test_a_path_that_computes_something_else_is_found_out(
    monkeypatch: pytest.MonkeyPatch, damage: float
) -> None:
    right = trial.fused_pooled_mixer

    def slightly_wrong(xz: Tensor, weights: MixerWeights, layout: Grid, *, backend: str) -> Tensor:
        assert backend == "cpp"
        return right(xz, weights, layout, backend="cpp") + damage

    monkeypatch.setattr(trial, "fused_pooled_mixer", slightly_wrong)
    with pytest.raises(TrialError, match="cpp kernels differ from plain torch"):
        try_out("cpp", torch.device("cpu"))


@needs_compiler
def test_the_trial_passes_here_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    try_out("cpp", torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


@needs_compiler
@pytest.mark.parametrize(
    "state",
    [
        torch.inference_mode(),
        torch.autocast("cpu", torch.bfloat16),
        torch.device("meta"),
        torch.autograd.graph.saved_tensors_hooks(lambda _: None, lambda _: None),
    ],
    ids=["inference", "autocast", "default device", "hooks"],
)
def test_what_the_caller_is_in_the_middle_of_does_not_decide_the_trial(
    state: AbstractContextManager[object],
) -> None:
    with state:
        assert chosen_backend("cpu") == "cpp"


def test_an_empty_variable_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chosen_backend("cpu")
    monkeypatch.setenv("CELLVIM_KERNEL", "")
    assert chosen_backend("cpu") == expected


def test_float64_is_never_rounded_to_the_fused_paths_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    xz, weights, grid = draw_tokens(1, 6, 4), draw_weights(4), Grid(2, 3, 1)
    chosen = pooled_mixer(xz, weights, grid)
    monkeypatch.setenv("CELLVIM_KERNEL", "naive")
    torch.testing.assert_close(chosen, pooled_mixer(xz, weights, grid), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", ["torch", "naive", pytest.param("cpp", marks=needs_compiler)])
def test_backends_agree(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    xz, weights, grid = (
        draw_tokens(1, 6, 4, dtype=torch.float32),
        draw_weights(4, dtype=torch.float32),
        Grid(2, 3, 1),
    )
    monkeypatch.setenv("CELLVIM_KERNEL", "naive")
    truth = pooled_mixer(xz, weights, grid)
    monkeypatch.setenv("CELLVIM_KERNEL", wanted)
    torch.testing.assert_close(pooled_mixer(xz, weights, grid), truth)
    tokens, residual, scale = xz.detach(), xz.detach() + 1, torch.rand(8)
    expected = naive_add_rms_norm(tokens, residual, scale)
    for mine, truth in zip(add_rms_norm(tokens, residual, scale), expected, strict=True):
        torch.testing.assert_close(mine, truth)


@pytest.mark.parametrize(
    ("backend", "states", "taps", "reason"),
    [
        ("triton", 12, 4, "a power of two, at most 64 states, this model has 12"),
        ("triton", 128, 4, "at most 64 states, this model has 128"),
        ("cpp", 257, 4, "at most 256 states, this model has 257"),
        ("cpp", 16, 3, "convolve 4 taps, this model has 3"),
        ("triton", 16, 4, None),
        ("cpp", 12, 4, None),
    ],
)
def test_models_beyond_a_fused_path_are_known(
    backend: str, states: int, taps: int, reason: str | None
) -> None:
    found = availability.why_beyond(backend, states, taps)
    assert found is None if reason is None else reason in str(found)


def test_a_model_beyond_the_fused_path_is_computed_by_plain_torch_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "_fused_backend", lambda _: "cpp")
    dispatch._told_limit.cache_clear()
    xz, weights = draw_tokens(1, 4, 4, dtype=torch.float32), draw_weights(4, state=260, dtype=torch.float32)
    with caplog.at_level(logging.WARNING, logger="cellvim_kernels"):
        mixed = pooled_mixer(xz, weights, Grid(2, 2, 1))
        pooled_mixer(xz, weights, Grid(2, 2, 1))
    assert len(caplog.records) == 1
    assert "at most 256 states" in caplog.records[0].getMessage()
    assert chosen_backend("cpu", states=260) == "torch"
    monkeypatch.undo()
    monkeypatch.setenv("CELLVIM_KERNEL", "torch")
    assert torch.equal(mixed, pooled_mixer(xz, weights, Grid(2, 2, 1)))


def test_who_does_not_compile_does_not_load_the_compiler() -> None:
    """It takes seconds, which every command would wait for."""
    loaded = "import sys, cellvim_kernels; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True)
