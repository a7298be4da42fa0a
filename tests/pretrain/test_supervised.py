"""A classifier learns what is there, and its three hold-outs tell what it learned from what it recognised."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from cellvim.config import PretrainSettings
from cellvim.dataset.splits import LEAKY, PERTURBATION_HELD_OUT, PLATE_HELD_OUT
from cellvim.errors import InputError
from cellvim.folds import hash_of
from cellvim.model import load_encoder
from cellvim.model.classifier import load_classifier
from cellvim.pretrain import pretrain
from cellvim.store import FieldKey, PlateReader, PlateWriter

TINY = {"width": 24, "depth": 2, "patch_px": 8, "position_grid": 4}
WELLS = tuple(f"{row}{column:02}" for row in "AB" for column in range(1, 5))
PERIODS = (3, 4, 5, 8)
ALTERNATING = (0, 1) * 4
ALL_WELLS = {"label": "Moa", "group": "Moa", "held_out_plates": ["P2"]}
"""Without values held out, so that every well of P1 is learned from."""


def write_striped(folder: Path, name: str, patterns: Sequence[int], layout: pl.DataFrame) -> PlateReader:
    """Write a plate with one field a well, striped: four periods, lying or standing, that no normalisation takes."""
    writer = PlateWriter(folder / "plates", name, ("DNA", "ER"), np.dtype(np.uint16))
    writer.begin()
    fields = [FieldKey(well, 1) for well in WELLS]
    for key, pattern in zip(fields, patterns, strict=True):
        wave = 900 * (1 + np.sin(2 * np.pi * np.arange(64) / PERIODS[pattern % 4]))
        stripes = wave[:, None] if pattern < 4 else wave[None, :]
        noise = np.random.default_rng(hash_of(f"{name}/{key.well}")).normal(300, 20, (2, 64, 64))
        pixels = (noise + stripes).clip(0, 65535).astype(np.uint16)
        writer.write_field(key, pixels, token=key.well, is_valid=[True, True])
    writer.finish(fields, platemap=layout)
    return PlateReader(writer.path)


def platemap(labels: Sequence[int], drugs: Sequence[int] | None = None) -> pl.DataFrame:
    drugs = range(len(labels)) if drugs is None else drugs
    return pl.DataFrame(
        {
            "Metadata_Well": WELLS,
            "Metadata_Perturbation": [f"drug {drug}" for drug in drugs],
            "Metadata_Moa": [f"moa {label}" for label in labels],
        }
    )


def settings_for(plates: Sequence[PlateReader], out: Path, **changes: Any) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": [plate.path for plate in plates],
        "out": out,
        "objective": "supervised",
        "supervised": {"label": "Moa", "held_out_plates": ["P2"]},
        "steps": 80,
        "batch_size": 16,
        "device": "cpu",
        "model": TINY,
        "crops": {"crop_px": 24, "is_flipped": False},
        "optimizer": {"base_learning_rate": 0.1, "ema_decay": 0.9},
    }
    return PretrainSettings.checked({**content, **changes})


def accuracy(results: dict[str, Any], split: str) -> float:
    metric = results["splits"][split]["accuracy_per_well"]
    return float(metric["value"] if isinstance(metric, dict) else metric)


def half_right(labels: Sequence[int]) -> list[int]:
    """Labels of which every second of each value is another: what was learned by heart is right by half."""
    seen = [0, 0]
    changed = []
    for label in labels:
        changed.append(label if seen[label] % 2 else 1 - label)
        seen[label] += 1
    return changed


@pytest.fixture
def planted(tmp_path: Path) -> list[PlateReader]:
    """Two plates; what a label is, is seen in each of its wells."""
    layout = platemap(ALTERNATING, drugs=(0, 1, 2, 3) * 2)
    return [write_striped(tmp_path, name, ALTERNATING, layout) for name in ("P1", "P2")]


def test_a_planted_signal_is_learned(planted: list[PlateReader], tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = pretrain(settings_for(planted, out))
    results = json.loads((out / "holdout.json").read_text())
    assert results == summary.holdout
    for split in (PLATE_HELD_OUT, PERTURBATION_HELD_OUT, LEAKY):
        assert accuracy(results, split) > 0.9, split
    assert results["splits"][PLATE_HELD_OUT]["chance_commonest"] == 0.5
    head, card = load_classifier(out)
    encoder, model_card = load_encoder(out)
    assert card.classes == ("moa 0", "moa 1")
    assert card.held_out_plates == ("P2",)
    assert set(card.held_out_groups) == set(results["held_out_groups"])
    assert (model_card.objective, model_card.labels_used) == ("supervised", "Metadata_Moa")
    assert model_card.plates == ("P1",)
    with torch.no_grad():
        image = torch.zeros(1, 2, 24, 24)
        assert head(encoder.features(image, ("DNA", "ER"), pool="all")).shape == (1, 2)
    page = (out / "report.html").read_text()
    assert f'<tr class="leaky"><th scope="row">{LEAKY}</th>' in page
    assert f"{PLATE_HELD_OUT}: 1.000" in str(summary)


def test_shuffled_labels_are_named_by_chance(tmp_path: Path) -> None:
    shuffled = platemap(half_right(ALTERNATING))
    plates = [write_striped(tmp_path, n, ALTERNATING, shuffled) for n in ("P1", "P2")]
    results = pretrain(settings_for(plates, tmp_path / "run", supervised=ALL_WELLS)).holdout
    assert results is not None
    assert accuracy(results, PLATE_HELD_OUT) == 0.5


def test_a_fingerprint_without_a_phenotype_is_seen_by_the_leaky_split_alone(tmp_path: Path) -> None:
    """Each well has a look of its own that says nothing: on the other plate, half of the looks have another label."""
    labels = [0, 1, 0, 1, 1, 0, 1, 0]
    maps = {"P1": platemap(labels), "P2": platemap(half_right(labels))}
    plates = [write_striped(tmp_path, name, range(8), layout) for name, layout in maps.items()]
    results = pretrain(settings_for(plates, tmp_path / "run", supervised=ALL_WELLS)).holdout
    assert results is not None
    assert accuracy(results, LEAKY) > 0.9
    assert accuracy(results, PLATE_HELD_OUT) <= 0.625


def test_a_resumed_run_ends_with_the_same_bytes(planted: list[PlateReader], tmp_path: Path) -> None:
    settings = settings_for(planted, tmp_path / "run", steps=7, checkpoint_every=4)
    names = ("classifier.safetensors", "holdout.json", "model.safetensors", "metrics.jsonl")
    pretrain(settings)
    wanted = [(tmp_path / "run" / name).read_bytes() for name in names]
    (tmp_path / "run/checkpoints/step-00000007.safetensors").unlink()
    (tmp_path / "run/model.safetensors").unlink()
    assert not pretrain(settings).was_done
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == wanted


def test_parts_of_a_step_add_up(planted: list[PlateReader], tmp_path: Path) -> None:
    losses = []
    for parts in (1, 4):
        out = tmp_path / str(parts)
        pretrain(settings_for(planted, out, steps=4, engine={"accumulate": parts, "precision": "fp32"}))
        losses.append([json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_in_half_precision(planted: list[PlateReader], tmp_path: Path) -> None:
    results = pretrain(settings_for(planted, tmp_path / "run", engine={"precision": "bf16"})).holdout
    assert results is not None
    assert accuracy(results, PLATE_HELD_OUT) > 0.9


def test_other_labels_are_another_run(planted: list[PlateReader], tmp_path: Path) -> None:
    first = pretrain(settings_for(planted, tmp_path / "a", steps=0))
    layout = platemap([1, 0] * 4, drugs=(0, 1, 2, 3) * 2)
    relabelled = [write_striped(tmp_path, n, ALTERNATING, layout) for n in ("P1", "P2")]
    again = pretrain(settings_for(relabelled, tmp_path / "a", steps=0, overwrite=True))
    assert not again.was_done
    assert first.weights_sha256 == again.weights_sha256
    assert load_encoder(tmp_path / "a")[1].labels_used is None


def test_plates_without_labels_are_refused_before_anything_is_written(
    make_plate: Any, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"supervised\.label needs labels, but none of the plates has a plate map"
    ):
        pretrain(settings_for([make_plate("P1", side_px=64)], tmp_path / "run"))
    assert not (tmp_path / "run").exists()
