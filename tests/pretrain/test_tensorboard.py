"""TensorBoard shows the numbers of metrics.jsonl, each step once, however often a run was interrupted."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cellvim.config import PretrainSettings
from cellvim.errors import UsageError
from cellvim.pretrain import pretrain, tensorboard
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import PlateReader

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}


def settings_for(plate: PlateReader, out: Path) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": (plate.path,),
        "out": out,
        "steps": 6,
        "batch_size": 2,
        "checkpoint_every": 2,
        "device": "cpu",
        "model": TINY,
        "crops": {"crop_px": 32},
        "engine": {"is_logged_to_tensorboard": True},
    }
    return PretrainSettings.checked(content)


def scalars_of(out: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_run_shows_each_step_once(make_plate: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    settings, out = settings_for(make_plate(), tmp_path / "run"), tmp_path / "run"
    pretrain(settings)
    (out / "summary.json").unlink()
    list_checkpoints(out / "checkpoints")[-1].unlink()
    pretrain(settings)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "learning_rate"):
        found = scalars_of(out, name)
        assert [step for step, _ in found] == list(range(6))
        assert [value for _, value in found] == pytest.approx([line[name] for line in lines])
    assert len(list((out / "tensorboard").iterdir())) == 2
    shutil.rmtree(out / "checkpoints")
    pretrain(settings.model_copy(update={"overwrite": True}))
    assert len(list((out / "tensorboard").iterdir())) == 1


def test_a_missing_extra_is_said_before_anything_is_written(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        tensorboard.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorboard" else find_spec(name),
    )
    with pytest.raises(UsageError, match="not installed") as caught:
        pretrain(settings_for(make_plate(), tmp_path / "run"))
    assert "cellvim[tensorboard]" in caught.value.hint
    assert not (tmp_path / "run").exists()
