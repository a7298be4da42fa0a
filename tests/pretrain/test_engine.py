"""How a step is computed changes what it costs, not what is learned."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.config import EngineSettings, PretrainSettings
from cellvim.dataset import CropSource, TrainingIndex
from cellvim.errors import KeyboardStop, OutOfMemoryError, UsageError
from cellvim.model.tensors import read_tensors
from cellvim.pretrain import distributed, pretrain
from cellvim.pretrain.build import build_objective
from cellvim.pretrain.compute import CompileError, choose_precision, prepare_model
from cellvim.pretrain.distributed import Ranks
from cellvim.pretrain.loop import Trainer
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import PlateReader

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}

ROUNDING = 1e-5
"""Sums of float32 in another order, relative to the largest number of a tensor."""
BF16 = 0.05
"""bf16 keeps 8 bits; the loss of a small model averages most of what that loses."""
BF16_GRADIENT = 0.03
"""2-norm of what rounding to 8 bits changes in the gradient, as a share of the gradient's own: 0.007 was seen, and a
gradient that has lost its direction is off by 1."""


def settings_for(plate: PlateReader, out: Path, **changes: Any) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": (plate.path,),
        "out": out,
        "steps": 6,
        "batch_size": 8,
        "checkpoint_every": 100,
        "device": "cpu",
        "model": TINY,
        "crops": {"crop_px": 32},
        "optimizer": {"base_learning_rate": 0.01},
    }
    return PretrainSettings.checked({**content, **changes})


def losses_of(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


def gradients(settings: PretrainSettings, index: TrainingIndex, *, step: int) -> dict[str, torch.Tensor]:
    """Gradients of a step as the trainer computes them."""
    source = CropSource(index, settings.crops, batch_size=settings.batch_size, seed=settings.seed)
    trainer = Trainer(settings, build_objective(settings, index), source, identity="")
    batches = (source.batch(step, samples) for samples in trainer.slices)
    trainer._compute_gradients(batches)
    parameters = trainer.state.model.named_parameters()
    return {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}


@pytest.mark.parametrize("step", range(4))
def test_a_batch_in_parts_has_the_gradient_of_the_whole(make_plate: Any, tmp_path: Path, step: int) -> None:
    plate = make_plate()
    index = TrainingIndex([plate], crop_px=32)
    whole = gradients(settings_for(plate, tmp_path), index, step=step)
    parts = gradients(settings_for(plate, tmp_path, engine={"accumulate": 4}), index, step=step)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(
            parts[name], value, rtol=0, atol=ROUNDING * float(value.abs().max() + 1e-3)
        )


@pytest.mark.parametrize("step", range(2))
def test_recomputed_blocks_have_the_same_gradient(make_plate: Any, tmp_path: Path, step: int) -> None:
    plate = make_plate()
    index = TrainingIndex([plate], crop_px=32)
    kept = gradients(settings_for(plate, tmp_path), index, step=step)
    again = gradients(settings_for(plate, tmp_path, engine={"is_checkpointed": True}), index, step=step)
    for name, value in kept.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_recomputing_reaches_encoder_and_decoder(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    index = TrainingIndex([plate], crop_px=32)
    objective = build_objective(settings_for(plate, tmp_path), index)
    prepare_model(objective, EngineSettings(is_checkpointed=True), torch.device("cpu"))
    switched = [
        name for name, module in objective.named_modules() if getattr(module, "is_checkpointed", False)
    ]
    assert switched == ["autoencoder.encoder", "autoencoder.decoder"]


def test_bf16_learns_the_same_and_keeps_its_weights_in_float32(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    pretrain(settings_for(plate, tmp_path / "fp32"))
    pretrain(settings_for(plate, tmp_path / "bf16", engine={"precision": "bf16"}))
    exact, rounded = losses_of(tmp_path / "fp32"), losses_of(tmp_path / "bf16")
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=BF16)
    record = json.loads((tmp_path / "bf16/run.json").read_text())
    assert record["facts"]["precision"] == "bfloat16"
    assert record["facts"]["peak_memory_bytes"] > 0
    newest = list_checkpoints(tmp_path / "bf16/checkpoints")[-1]
    for name, tensor in read_tensors(newest, hint="")[1].items():
        assert tensor.dtype == torch.float32 or not tensor.is_floating_point(), name


@pytest.mark.parametrize("step", range(2))
def test_the_gradient_of_bf16_points_where_that_of_float32_does(
    make_plate: Any, tmp_path: Path, step: int
) -> None:
    plate = make_plate()
    index = TrainingIndex([plate], crop_px=32)
    exact = gradients(settings_for(plate, tmp_path), index, step=step)
    rounded = gradients(settings_for(plate, tmp_path, engine={"precision": "bf16"}), index, step=step)
    assert {gradient.dtype for gradient in rounded.values()} == {torch.float32}
    whole, other = (torch.cat([found[name].flatten() for name in exact]) for found in (exact, rounded))
    assert 0 < float((other - whole).norm() / whole.norm()) < BF16_GRADIENT


def test_auto_precision_is_float32_on_the_cpu() -> None:
    cpu = torch.device("cpu")
    assert choose_precision(EngineSettings(), cpu) == torch.float32
    assert choose_precision(EngineSettings(precision="bf16"), cpu) == torch.bfloat16


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_a_compiled_model_learns_the_same_under_the_same_names(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    pretrain(settings_for(plate, tmp_path / "plain"))
    engine = {"is_compiled": True, "is_checkpointed": True}
    compiled = settings_for(plate, tmp_path / "compiled", engine=engine)
    # In a process of its own: the shape checks of the tests, and warnings as errors, are not for PyTorch's compiler.
    script = """
import sys
from cellvim.config import PretrainSettings
from cellvim.pretrain import distributed, pretrain
pretrain(PretrainSettings.model_validate_json(sys.argv[1]))
"""
    subprocess.run([sys.executable, "-c", script, compiled.model_dump_json()], check=True)
    assert losses_of(tmp_path / "compiled") == pytest.approx(losses_of(tmp_path / "plain"), rel=ROUNDING)
    names = [checkpoint_names(tmp_path / run) for run in ("plain", "compiled")]
    assert names[0] == names[1]


def checkpoint_names(out: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(list_checkpoints(out / "checkpoints")[-1], framework="pt") as file:
        return sorted(file.keys())


def test_a_missing_compiler_is_said_before_anything_is_written(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(CompileError, match="no compiler no-such-compiler"):
        pretrain(settings_for(make_plate(), tmp_path / "run", engine={"is_compiled": True}))
    assert not (tmp_path / "run").exists()


def test_samples_that_cannot_be_dealt_out_evenly_are_refused(make_plate: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch_size=8 cannot be dealt out evenly to 1 rank") as caught:
        pretrain(settings_for(make_plate(), tmp_path / "run", engine={"accumulate": 3}))
    assert "multiple of 3" in caught.value.hint
    with pytest.raises(UsageError, match="in groups of 2"):
        Ranks().slices(6, parts=2, together=2)


def test_ranks_and_parts_share_a_step_without_gap_or_overlap() -> None:
    dealt = [Ranks(rank, 3).slices(24, parts=2, together=2) for rank in range(3)]
    assert {len(part) for own in dealt for part in own} == {4}
    for part, wanted in enumerate((range(12), range(12, 24))):
        assert [sample for own in dealt for sample in own[part]] == list(wanted), (
            "a part is split over the ranks"
        )


def test_only_slices_whose_flag_is_up_on_some_rank_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Ranks().slices(12, parts=3, together=1)
    assert Ranks().flagged(slices, [False, True, False]) == [range(4, 8)]
    assert Ranks().flagged(slices, [False] * 3) == []
    other = [0.5, 0.0, 0.0, 0.0]
    monkeypatch.setattr(Ranks, "mean", lambda _, own: [a / 2 + b for a, b in zip(own, other, strict=True)])
    second = Ranks(1, 2)
    slices = second.slices(16, parts=2, together=1)
    assert second.flagged(slices, [False, True]) == [range(4), range(12, 16)]


@pytest.mark.parametrize(
    ("error", "raised", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left"), OSError, 5, "the disk is full"),
        (MemoryError(), OutOfMemoryError, 6, "does not fit into memory"),
        (UsageError("wrong", hint="right"), UsageError, 2, "wrong"),
        (KeyboardStop(), KeyboardStop, 130, "stopped by the keyboard"),
        (ZeroDivisionError(), ZeroDivisionError, 70, "ZeroDivisionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_stops_the_first_rank_is_told_to_the_others(
    error: BaseException, raised: type[BaseException], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(distributed, "_broadcast", lambda content: sent.append(content) or content)

    def fail() -> dict[str, Any]:
        raise error

    with pytest.raises(raised):
        Ranks(0, 2).lead(fail)
    monkeypatch.setattr(distributed, "_broadcast", lambda _: sent[0])
    with pytest.raises(distributed.FirstRankError, match=f"the first rank stopped: .*{told}") as caught:
        Ranks(1, 2).lead(fail)
    assert caught.value.exit_code == code


def test_threads_that_read_are_no_part_of_a_run(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    first = pretrain(settings_for(plate, tmp_path / "run", engine={"workers": 1}))
    assert pretrain(settings_for(plate, tmp_path / "run", engine={"workers": 4})).was_done
    other = pretrain(settings_for(plate, tmp_path / "other", engine={"workers": 4}))
    assert other.weights_sha256 == first.weights_sha256


def test_resuming_on_another_number_of_ranks_is_said(
    make_plate: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(make_plate(), tmp_path / "run")
    pretrain(settings)
    (tmp_path / "run/summary.json").unlink()
    identity = tmp_path / "run/checkpoints/identity.json"
    begun = json.loads(identity.read_text())
    identity.write_text(json.dumps({**begun, "ranks": 2}))
    pretrain(settings)
    assert "the last bits may differ" in caplog.text
    assert "ranks 2 before, 1 now" in caplog.text


def test_the_moving_average_is_neither_compiled_nor_checkpointed(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which modules are compiled is the matter here, not how: any program will do as a compiler.
    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    settings = settings_for(
        make_plate(), tmp_path / "run", engine={"is_compiled": True, "is_checkpointed": True}
    )
    index = TrainingIndex.open(settings.plates, crop_px=32)
    source = CropSource(index, settings.crops, batch_size=settings.batch_size, seed=settings.seed)
    state = Trainer(settings, build_objective(settings, index), source, identity="").state
    assert prepared_modules(state.model) == (TINY["depth"] + TINY["decoder_depth"], 2)
    assert prepared_modules(state.ema) == (0, 0)


def prepared_modules(model: torch.nn.Module) -> tuple[int, int]:
    """How many modules are compiled, and how many compute again what they did not keep."""
    modules = list(model.modules())
    compiled = [module for module in modules if module._compiled_call_impl is not None]
    return len(compiled), sum(getattr(module, "is_checkpointed", False) for module in modules)
