"""Where the model computes, and what `cellvim doctor` says about it."""

import pytest
import torch

from cellvim.errors import UsageError
from cellvim.model import choose_device, describe_backend


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
    assert facts == {"device": "cpu", "threads": torch.get_num_threads(), "kernels": "naive"}


def test_doctor_refuses_unknown_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLVIM_KERNEL", "fpga")
    with pytest.raises(UsageError, match="CELLVIM_KERNEL=fpga"):
        describe_backend()
