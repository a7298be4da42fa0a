"""A run is exact: killed anywhere and resumed, its bytes are those of a run that nobody disturbed."""

import dataclasses
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.config import PretrainSettings
from cellvim.dataset import CropSource, TrainingIndex
from cellvim.errors import InputError, NonFiniteLossError, NotFoundError, OutputExistsError
from cellvim.model import MaskedAutoencoder, load_encoder
from cellvim.model.tensors import read_tensors
from cellvim.pretrain import load_autoencoder, loop, pretrain
from cellvim.pretrain.build import build_objective
from cellvim.pretrain.metrics import Metrics
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import PlateReader

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}


def settings_for(plate: PlateReader, out: Path, **changes: Any) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": (plate.path,),
        "out": out,
        "steps": 12,
        "batch_size": 4,
        "checkpoint_every": 5,
        "device": "cpu",
        "model": TINY,
        "crops": {"crop_px": 32},
        "optimizer": {"base_learning_rate": 0.05},
    }
    return PretrainSettings.checked({**content, **changes})


def hashes(out: Path) -> dict[str, str]:
    names = (
        "model.safetensors",
        "metrics.jsonl",
        "README.md",
        "loss.png",
        "reconstructions.png",
        "settings.yaml",
    )
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


def test_a_run_leaves_what_the_contract_names(make_plate: Any, tmp_path: Path) -> None:
    summary = pretrain(settings_for(make_plate(), tmp_path / "run"))
    out = tmp_path / "run"
    for name in (*hashes(out), "run.json", "report.html", "checkpoints"):
        assert (out / name).exists(), name
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(12))
    assert summary.channels == ("DNA", "ER", "Mito")
    encoder, card = load_encoder(out)
    assert card.steps == 12
    assert card.plates == ("P1",)
    assert sum(p.numel() for p in encoder.parameters()) == summary.parameters
    assert len(list_checkpoints(out / "checkpoints")) == 2


def test_training_moves_the_weights_and_lowers_the_loss(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    only_patches = {"masking": {"channel_steps": 0}}
    trained = settings_for(plate, tmp_path / "a", steps=60, checkpoint_every=100, **only_patches)
    pretrain(trained)
    untrained = pretrain(settings_for(plate, tmp_path / "b", steps=0))
    assert untrained.final_loss is None
    losses = [json.loads(line)["loss"] for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    before, after = (load_encoder(tmp_path / name)[0].state_dict() for name in ("b", "a"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_two_runs_are_the_same_bytes_and_another_seed_is_not(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    pretrain(settings_for(plate, tmp_path / "a"))
    pretrain(settings_for(plate, tmp_path / "b"))
    other = pretrain(settings_for(plate, tmp_path / "c", seed=1))
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert other.weights_sha256 != hashes(tmp_path / "a")["model.safetensors"]


@pytest.mark.parametrize(
    ("stop_after", "sent"), [(2, signal.SIGKILL), (6, signal.SIGKILL), (8, signal.SIGTERM)]
)
def test_a_killed_run_ends_with_the_same_bytes(
    make_plate: Any, tmp_path: Path, stop_after: int, sent: signal.Signals
) -> None:
    plate = make_plate()
    whole, broken = settings_for(plate, tmp_path / "whole"), settings_for(plate, tmp_path / "broken")
    pretrain(whole)
    code = kill_run(broken, stop_after=stop_after, sent=sent)
    assert code == (75 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "broken/model.safetensors").exists()
    pretrain(broken)
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "whole")


def kill_run(settings: PretrainSettings, *, stop_after: int, sent: signal.Signals) -> int:
    """Run in another process, which sends itself a signal once a step is done."""
    script = """
import os, sys
from cellvim.config import PretrainSettings
from cellvim.pretrain import load_autoencoder, loop, pretrain
from cellvim.terminal import run_to_exit_code
take = loop.Trainer._take_step
def take_and_signal(self, batch, metrics):
    take(self, batch, metrics)
    metrics.flush()
    if self.state.step == int(sys.argv[2]):
        os.kill(os.getpid(), int(sys.argv[3]))
loop.Trainer._take_step = take_and_signal
run_to_exit_code(lambda _: pretrain(PretrainSettings.model_validate_json(sys.argv[1])))
"""
    arguments = [settings.model_dump_json(), str(stop_after), str(int(sent))]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True
    ).returncode


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    make_plate: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plate = make_plate()
    settings = settings_for(plate, tmp_path / "run")
    pretrain(settings)
    wanted = hashes(tmp_path / "run")
    (tmp_path / "run/summary.json").unlink()
    newest = list_checkpoints(tmp_path / "run/checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    pretrain(settings)
    assert hashes(tmp_path / "run") == wanted
    assert "falling back" in caplog.text


def test_a_finished_run_is_not_repeated_and_not_overwritten(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    settings = settings_for(plate, tmp_path / "run")
    first = pretrain(settings)
    before = (tmp_path / "run/model.safetensors").stat().st_mtime_ns
    again = pretrain(settings)
    assert again.was_done
    assert again.weights_sha256 == first.weights_sha256
    assert (tmp_path / "run/model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(OutputExistsError, match="other settings or plates"):
        pretrain(settings_for(plate, tmp_path / "run", seed=1))
    pretrain(settings_for(plate, tmp_path / "run", seed=1, overwrite=True))
    assert hashes(tmp_path / "run")["model.safetensors"] != first.weights_sha256


def test_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(make_plate: Any, tmp_path: Path) -> None:
    wild = settings_for(
        make_plate(),
        tmp_path / "run",
        checkpoint_every=1,
        optimizer={"base_learning_rate": 1e30, "warmup_share": 0},
    )
    with pytest.raises(NonFiniteLossError, match=r"from all samples of the 4 in the batch") as caught:
        pretrain(wild)
    bad = int(re.findall(r"at step (\d+)", caught.value.found)[0])
    kept = list_checkpoints(tmp_path / "run/checkpoints")
    assert f"the last good checkpoint is kept: {kept[-1]}" in caught.value.hint
    header, tensors = read_tensors(kept[-1], hint="")
    assert header is not None
    assert json.loads(header)["step"] == bad
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    autoencoder = MaskedAutoencoder(wild.model, ("DNA", "ER", "Mito"), seed=wild.seed)
    own = {name.removeprefix("ema/autoencoder."): value for name, value in tensors.items() if "ema/" in name}
    autoencoder.load_state_dict(own)
    assert not (tmp_path / "run/model.safetensors").exists()
    with pytest.raises(NonFiniteLossError) as again:
        pretrain(wild)
    assert again.value.args == caught.value.args, "the hint says that the same command meets it again"


def test_a_slice_whose_loss_is_not_finite_is_named_with_its_fields(make_plate: Any, tmp_path: Path) -> None:
    settings = settings_for(make_plate(), tmp_path / "run", batch_size=8, engine={"accumulate": 2})
    index = TrainingIndex.open(settings.plates, crop_px=32)
    source = CropSource(index, settings.crops, batch_size=8, seed=settings.seed)
    broken = dataclasses.replace(source.batch(0, range(4, 8)), images=torch.full((4, 3, 32, 32), torch.nan))
    trainer = loop.Trainer(settings, build_objective(settings, index), source, identity="")
    before = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    with pytest.raises(NonFiniteLossError, match=r"from samples 4 to 7 of the 8 in the batch") as caught:
        trainer._take_step(iter([source.batch(0, range(4)), broken]), Metrics(None, first=0))
    assert "no checkpoint had been written yet" in caught.value.hint
    assert [line.partition(":")[0] for line in caught.value.details] == [f"sample {n}" for n in range(4, 8)]
    assert all(re.search(r": plate P1 well [AB]0[12] field [12]$", line) for line in caught.value.details)
    for name, value in trainer.state.model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_crop_larger_than_the_field_is_refused_before_anything_is_written(
    make_plate: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="48 x 48 px, smaller than the crop of 64 px"):
        pretrain(settings_for(make_plate(), tmp_path / "run", crops={"crop_px": 64}))
    assert not (tmp_path / "run").exists()


def test_a_log_line_tells_how_fast_and_how_long_it_waited(
    make_plate: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="cellvim")
    pretrain(settings_for(make_plate(), tmp_path / "run", log_every=4))
    assert "step 4/12" in caplog.text
    assert "crops/s" in caplog.text
    assert "waiting for data" in caplog.text


def test_channel_sampling_trains_on_some_channels_only(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    sampled = pretrain(settings_for(plate, tmp_path / "a", masking={"channel_sampling": True}))
    assert sampled.final_loss is not None
    assert sampled.weights_sha256 != pretrain(settings_for(plate, tmp_path / "b")).weights_sha256


def test_two_plates_in_any_order_and_spelling_are_the_same_run(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plates = [make_plate("P1"), make_plate("P2")]
    paths = [plate.path for plate in plates]
    first = pretrain(settings_for(plates[0], tmp_path / "a", plates=paths))
    monkeypatch.chdir(tmp_path)
    relative = [Path("plates/../plates") / path.name for path in paths[::-1]]
    again = pretrain(settings_for(plates[0], tmp_path / "a", plates=relative))
    assert again.was_done
    second = pretrain(settings_for(plates[0], tmp_path / "b", plates=relative))
    assert second.weights_sha256 == first.weights_sha256


def test_a_run_keeps_the_threads_it_began_with(make_plate: Any, tmp_path: Path) -> None:
    plate, threads = make_plate(), torch.get_num_threads()
    settings = settings_for(plate, tmp_path / "run")
    try:
        torch.set_num_threads(1)
        kill_run(settings, stop_after=6, sent=signal.SIGKILL)
        begun_with = json.loads((tmp_path / "run/checkpoints/identity.json").read_text())["threads"]
        torch.set_num_threads(begun_with + 1)
        pretrain(settings)
        assert torch.get_num_threads() == begun_with
    finally:
        torch.set_num_threads(threads)


def test_a_run_is_done_only_if_its_weights_are_there(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    settings = settings_for(plate, tmp_path / "run")
    pretrain(settings)
    wanted = hashes(tmp_path / "run")
    (tmp_path / "run/model.safetensors").unlink()
    assert not pretrain(settings).was_done
    assert hashes(tmp_path / "run") == wanted
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert pretrain(settings).was_done
    with pytest.raises(OutputExistsError, match="other settings or plates"):
        pretrain(settings_for(plate, tmp_path / "run", seed=9))


def test_overwrite_goes_on_with_its_own_unfinished_run_and_clears_another(
    make_plate: Any, tmp_path: Path
) -> None:
    plate = make_plate()
    pretrain(settings_for(plate, tmp_path / "run"))
    untrained = pretrain(settings_for(plate, tmp_path / "run", steps=0, overwrite=True))
    assert not (tmp_path / "run/loss.png").exists()
    assert not untrained.was_done
    other = settings_for(plate, tmp_path / "run", seed=5, overwrite=True)
    assert kill_run(other, stop_after=8, sent=signal.SIGTERM) == 75
    assert not (tmp_path / "run/model.safetensors").exists()
    kept = list_checkpoints(tmp_path / "run/checkpoints")
    assert kill_run(other, stop_after=9, sent=signal.SIGKILL) == -signal.SIGKILL
    assert list_checkpoints(tmp_path / "run/checkpoints") == kept
    pretrain(other)
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 12


def test_files_of_somebody_else_are_left_alone(make_plate: Any, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "README.md").write_text("my notes")
    with pytest.raises(OutputExistsError, match=r"holds files of no pretraining run \(README.md\)"):
        pretrain(settings_for(make_plate(), out))
    assert [path.name for path in out.iterdir()] == ["README.md"]
    assert (out / "README.md").read_text() == "my notes"


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plate = make_plate()
    settings = settings_for(plate, tmp_path / "run", checkpoint_every=1)
    pretrain(settings_for(plate, tmp_path / "whole", checkpoint_every=1))
    clip = loop.clip_grad_norm_
    calls = iter(range(100))

    def clip_or_break(parameters: Any, largest: float) -> torch.Tensor:
        norm = clip(parameters, largest)
        return norm * float("nan") if next(calls) == 7 else norm

    monkeypatch.setattr(loop, "clip_grad_norm_", clip_or_break)
    with pytest.raises(NonFiniteLossError, match=r"at step 7 .* norm of its gradient nan"):
        pretrain(settings)
    monkeypatch.undo()
    pretrain(settings)
    assert hashes(tmp_path / "run") == hashes(tmp_path / "whole")


def test_the_autoencoder_of_a_finished_run_can_be_read_back(make_plate: Any, tmp_path: Path) -> None:
    settings = settings_for(make_plate(), tmp_path / "run")
    pretrain(settings)
    autoencoder = load_autoencoder(tmp_path / "run")
    encoder, _ = load_encoder(tmp_path / "run")
    for name, value in encoder.state_dict().items():
        assert torch.equal(autoencoder.encoder.state_dict()[name], value), name
    shutil.rmtree(tmp_path / "run/checkpoints")
    with pytest.raises(NotFoundError, match="no masked autoencoder"):
        load_autoencoder(tmp_path / "run")
