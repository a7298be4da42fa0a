"""Every shipped config loads, and takes three real steps: a typo in a YAML fails here, not an hour into a run."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from cellvim.config import PretrainSettings
from cellvim.errors import InputError
from cellvim.pretrain import pretrain

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
BRIGHTFIELD = ("Brightfield", "Brightfield high", "Brightfield low")
WELLS = tuple(f"{row}{col:02d}" for row in "AB" for col in (1, 2, 3))


def channels_of(path: Path) -> tuple[str, ...]:
    if path.stem == "bbbc013":
        return ("GFP", "DNA")
    return STAINS if "5ch" in path.stem or path.stem == "demo" else STAINS + BRIGHTFIELD


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_there_is_a_config_for_each_kind_of_run() -> None:
    assert {path.stem for path in CONFIGS} >= {
        "demo", "bbbc013", "jump_8ch_s16", "jump_8ch_s8", "jump_5ch_s16", "jump_5ch_s8", "jump_align",
        "jump_supervised",
    }  # fmt: skip
    objectives = {PretrainSettings.from_yaml(path).objective for path in CONFIGS}
    assert objectives == {"mae", "align", "supervised"}


def test_a_config_comes_back_from_its_resolved_form(config: Path, tmp_path: Path) -> None:
    settings = PretrainSettings.from_yaml(config)
    (tmp_path / "settings.yaml").write_text(settings.to_yaml())
    assert PretrainSettings.from_yaml(tmp_path / "settings.yaml") == settings
    assert settings.batch_size % (2 * settings.engine.accumulate) == 0, (
        "parts are whole, and hold pairs whole"
    )


def test_a_config_holds_only_what_differs_from_the_defaults(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    defaults = PretrainSettings(preset=content["preset"]).model_dump(mode="json")
    assert not list(
        repeated(content, {**defaults, "preset": "nano" if content["preset"] != "nano" else None})
    )


def repeated(content: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Keys of `content` that say what would be true without them."""
    same = []
    for key, value in content.items():
        if isinstance(value, dict):
            same += [f"{key}.{name}" for name in repeated(value, defaults[key])]
        elif value == defaults[key]:
            same.append(key)
    return same


def test_a_config_takes_three_steps(config: Path, make_plate: Any, tmp_path: Path) -> None:
    whole = PretrainSettings.from_yaml(config)
    crop_px = 2 * whole.model.patch_px
    settings = PretrainSettings.from_yaml(
        config,
        plates=[plate_like(config, name, make_plate, crop_px).path for name in ("P1", "P2")],
        out=tmp_path / "run",
        steps=3,
        batch_size=4,
        engine={"accumulate": min(2, whole.engine.accumulate)},
        checkpoint_every=3,
        device="cpu",
        crops={"crop_px": crop_px},
    )
    assert settings.model == whole.model
    summary = pretrain(settings)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert set(summary.channels) == set(channels_of(config))
    shutil.rmtree(tmp_path / "run")


def plate_like(config: Path, name: str, make_plate: Any, crop_px: int) -> Any:
    """A plate with the channels that a config is for, three perturbations, and two wells of each."""
    perturbations = ["DMSO", "drug@1 uM", "drug@5 uM"] * 2
    platemap = pl.DataFrame(
        {
            "Metadata_Well": WELLS,
            "Metadata_Perturbation": perturbations,
            "Metadata_ControlType": ["negcon" if one == "DMSO" else None for one in perturbations],
        }
    )
    return make_plate(
        name, wells=WELLS, sites=1, channels=channels_of(config), side_px=2 * crop_px, platemap=platemap
    )


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("masking: {mask_ration: 0.5}")
    with pytest.raises(InputError, match="mask_ration"):
        PretrainSettings.from_yaml(tmp_path / "typo.yaml")
