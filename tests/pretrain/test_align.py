"""Alignment trains beside the masked loss, says where its pairs came from, and is exact under resume."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, TrainingIndex
from cellvim.errors import InputError, UsageError
from cellvim.model import load_encoder
from cellvim.pretrain import pretrain
from cellvim.pretrain.aligned import AlignedObjective
from cellvim.pretrain.build import build_objective
from cellvim.store import PlateReader

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}
WELLS = ("A01", "A02", "B01", "B02")
LAYOUT = pl.DataFrame(
    {
        "Metadata_Well": WELLS,
        "Metadata_Perturbation": ["DMSO", "a", "b", "c"],
        "Metadata_ControlType": ["negcon", None, None, None],
    }
)


@pytest.fixture
def plates(make_plate: Any) -> list[PlateReader]:
    return [make_plate(name, platemap=LAYOUT) for name in ("P1", "P2")]


def settings_for(plates: Sequence[PlateReader], out: Path, **changes: Any) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": [plate.path for plate in plates],
        "out": out,
        "objective": "align",
        "alignment": {"weight": 1.0},
        "steps": 7,
        "batch_size": 8,
        "device": "cpu",
        "checkpoint_every": 4,
        "model": TINY,
        "crops": {"crop_px": 32},
        "optimizer": {"base_learning_rate": 0.05},
    }
    return PretrainSettings.checked({**content, **changes})


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def toy_batch(labels: Sequence[int] | None = (0, 0, 1, 1, 2, 2, 3, 3)) -> Batch:
    images = torch.randn(8, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    numbers = None if labels is None else torch.tensor(labels)
    return Batch(images, ("DNA", "ER"), step=1, first=0, size=8, labels=numbers)


def test_a_run_says_where_its_pairs_came_from_and_which_labels_it_saw(
    plates: list[PlateReader], tmp_path: Path
) -> None:
    pretrain(settings_for(plates, tmp_path / "run"))
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["facts"]["partners"] == {"replicate": 6, "field": 2, "crop": 0}
    card = load_encoder(tmp_path / "run")[1]
    assert (card.objective, card.labels_used) == ("align", "Metadata_Perturbation")
    assert "align, labels Metadata_Perturbation took part" in (tmp_path / "run/README.md").read_text()
    for line in metrics_of(tmp_path / "run"):
        parts = line["pixel_loss"] + 0.01 * line["fourier_loss"] + line["alignment_loss"]
        assert line["loss"] == pytest.approx(parts, rel=1e-5)


def test_pairs_of_a_well_take_no_labels(make_plate: Any, tmp_path: Path) -> None:
    settings = settings_for([make_plate("P1")], tmp_path / "run", alignment={"positives": "well"}, steps=2)
    pretrain(settings)
    card = load_encoder(tmp_path / "run")[1]
    assert (card.objective, card.labels_used) == ("align", None)
    with pytest.raises(InputError, match="none of the plates has a plate map"):
        pretrain(settings_for([make_plate("P2")], tmp_path / "other"))


def test_alignment_brings_partners_together(plates: list[PlateReader], tmp_path: Path) -> None:
    settings = settings_for(plates, tmp_path, alignment={"weight": 1.0, "positives": "well"})
    objective = build_objective(settings, TrainingIndex(plates, crop_px=32))
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = objective(toy_batch())["alignment_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_weight_decides_what_reaches_the_encoder(plates: list[PlateReader], tmp_path: Path) -> None:
    gradients = []
    for weight in (0.0, 0.5):
        settings = settings_for(plates, tmp_path, alignment={"weight": weight})
        objective = AlignedObjective(settings, ("DNA", "ER"))
        parts = objective(toy_batch())
        parts["loss"].backward()
        whole = objective.encoder.norm.weight.grad
        assert whole is not None
        alignment = objective(toy_batch())["alignment_loss"]
        (alone,) = torch.autograd.grad(alignment, [objective.encoder.norm.weight])
        gradients.append(whole - weight * alone)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_resumed_run_ends_with_the_same_bytes(plates: list[PlateReader], tmp_path: Path) -> None:
    settings = settings_for(plates, tmp_path / "run")
    names = ("model.safetensors", "metrics.jsonl")
    pretrain(settings)
    wanted = [(tmp_path / "run" / name).read_bytes() for name in names]
    (tmp_path / "run/checkpoints/step-00000007.safetensors").unlink()
    (tmp_path / "run/model.safetensors").unlink()
    pretrain(settings)
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == wanted


@pytest.mark.parametrize("engine", [{"accumulate": 2}, {"precision": "bf16"}])
def test_parts_and_half_precision_train(
    plates: list[PlateReader], tmp_path: Path, engine: dict[str, Any]
) -> None:
    pretrain(settings_for(plates, tmp_path / "run", engine=engine))
    losses = [line["alignment_loss"] for line in metrics_of(tmp_path / "run")]
    assert max(losses) > 0
    assert all(math.isfinite(loss) for loss in losses)


def test_a_part_of_a_step_must_hold_pairs_to_tell_apart(plates: list[PlateReader], tmp_path: Path) -> None:
    for batch_size, parts in ((7, 1), (2, 1), (8, 4)):
        settings = settings_for(plates, tmp_path, batch_size=batch_size, engine={"accumulate": parts})
        with pytest.raises(UsageError, match="not made of pairs"):
            AlignedObjective(settings, ("DNA", "ER"))
    settings = settings_for(plates, tmp_path)
    with pytest.raises(ValueError, match="does not say what it shows"):
        AlignedObjective(settings, ("DNA", "ER"))(toy_batch(None))
