"""Where the model computes, and what `cellvim doctor` says about it."""

import numpy as np
import pytest
import torch

from cellvim.errors import ExitCode, InputError, OutOfMemoryError, UsageError
from cellvim.model import check_kernels, choose_device, describe_backend, explain_out_of_memory


@pytest.mark.parametrize("has_gpu", [False, True])
def test_a_gpu_is_used_if_there_is_one(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")
    assert choose_device("cpu").type == "cpu"


def test_asking_for_an_absent_gpu_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="sees no GPU"):
        choose_device("cuda")


def test_doctor_names_device_threads_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CELLVIM_KERNEL", "naive")
    facts = describe_backend()
    assert facts["device"] == "cpu"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["kernels"] == "naive"
    assert facts["backends"]["naive"] == "in use"
    assert facts["backends"]["torch"] == "available"
    assert facts["backends"]["mamba"].startswith("not available: ")


def test_kernels_that_are_not_there_are_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CELLVIM_KERNEL", "mamba")
    with pytest.raises(UsageError, match=r"CELLVIM_KERNEL=mamba, but .*mamba"):
        check_kernels(torch.device("cpu"))


@pytest.mark.parametrize("wanted", ["fpga", "mamba"])
def test_doctor_tells_what_is_wrong_instead_of_refusing(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CELLVIM_KERNEL", wanted)
    facts = describe_backend()
    assert facts["kernels"].startswith(f"none: CELLVIM_KERNEL={wanted}")
    assert facts["backends"]["torch"] == "available"


PETABYTE = 2**50
"""More than a process can address, so that no machine grants it."""


def test_a_full_gpu_is_explained_in_one_line_with_an_exit_code_of_its_own() -> None:
    message = "CUDA out of memory. Tried to allocate 20.00 GiB.\nSee the documentation of memory management"
    with pytest.raises(OutOfMemoryError, match="Tried to allocate 20") as caught, explain_out_of_memory():
        raise torch.OutOfMemoryError(message)
    assert caught.value.exit_code == ExitCode.MEMORY == 6
    assert "\n" not in caught.value.found
    assert "--batch-size" in caught.value.hint
    assert isinstance(caught.value, MemoryError)


def test_memory_that_the_machine_refuses_to_torch_or_numpy_is_explained() -> None:
    with pytest.raises(OutOfMemoryError, match="does not fit into memory"), explain_out_of_memory():
        torch.empty(PETABYTE, dtype=torch.uint8)
    with pytest.raises(OutOfMemoryError, match="Unable to allocate"), explain_out_of_memory():
        np.empty(PETABYTE, dtype=np.uint8)
    with pytest.raises(OutOfMemoryError, match="the allocation failed"), explain_out_of_memory():
        raise MemoryError


def test_the_words_of_the_allocator_on_windows_are_known() -> None:
    message = "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
    with pytest.raises(OutOfMemoryError), explain_out_of_memory():
        raise RuntimeError(message)


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), explain_out_of_memory():
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    found = "a file says: not enough memory"
    with pytest.raises(InputError, match=found), explain_out_of_memory():
        raise InputError(found, hint="read it")


def test_blocks_within_blocks_explain_once() -> None:
    with pytest.raises(OutOfMemoryError) as caught, explain_out_of_memory(), explain_out_of_memory():
        raise MemoryError
    assert isinstance(caught.value.__cause__, MemoryError)
    assert not isinstance(caught.value.__cause__, OutOfMemoryError)
