"""Settings are strict, presets are filled in, and every shipped file loads."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.config import PRESETS, IngestSettings, PretrainSettings, merge
from cellvim.errors import InputError, NotFoundError, UsageError

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def test_there_are_configs_to_check() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_survives_a_round_trip(path: Path, tmp_path: Path) -> None:
    settings = PretrainSettings.from_yaml(path)
    (tmp_path / "again.yaml").write_text(settings.to_yaml())
    assert PretrainSettings.from_yaml(tmp_path / "again.yaml") == settings


def test_a_misspelt_key_is_named() -> None:
    with pytest.raises(UsageError, match=r"masking\.mask_ration"):
        PretrainSettings.checked({"masking": {"mask_ration": 0.5}})


def test_a_file_is_named_as_the_place_of_its_mistake(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("masking: {mask_ration: 0.5}")
    with pytest.raises(InputError, match=r"run\.yaml: masking\.mask_ration"):
        PretrainSettings.from_yaml(tmp_path / "run.yaml")


def test_a_crop_that_patches_do_not_tile_is_refused() -> None:
    with pytest.raises(UsageError, match="crop_px=100 is not a multiple of patch_px=16"):
        PretrainSettings.checked({"crops": {"crop_px": 100}})


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_fills_the_model_and_explicit_keys_win(preset: str) -> None:
    settings = PretrainSettings.checked({"preset": preset, "model": {"depth": 3}})
    assert settings.model.width == PRESETS[preset]["width"]
    assert settings.model.depth == 3


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("steps: 5\nseed: 3\ncrops: {crop_px: 64, gain_jitter: 0}\n")
    settings = PretrainSettings.from_yaml(tmp_path / "run.yaml", steps=7, seed=None)
    assert (settings.steps, settings.seed, settings.crops.crop_px) == (7, 3, 64)


def test_a_missing_file_and_a_file_that_is_not_yaml_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no settings file at"):
        PretrainSettings.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="is not YAML"):
        PretrainSettings.from_yaml(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(InputError, match="holds no keys"):
        PretrainSettings.from_yaml(tmp_path / "list.yaml")


nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(st.sampled_from("abc"), nested, max_size=3))
def test_merging_nothing_changes_nothing_and_merging_itself_too(content: dict[str, object]) -> None:
    assert merge(content, {}) == content
    assert merge(content, content) == content


def test_hash_depends_on_values_only() -> None:
    assert PretrainSettings(seed=1).sha256() == PretrainSettings(seed=1).sha256()
    assert PretrainSettings(seed=1).sha256() != PretrainSettings(seed=2).sha256()


@pytest.mark.parametrize("place", ["plates", "s3://bucket/plates"])
def test_places_come_back_from_json_as_they_were(place: str) -> None:
    settings = IngestSettings(sources=(Path("images"),), out=place)
    assert settings.out == (place if "://" in place else Path(place))
    assert IngestSettings.model_validate_json(settings.model_dump_json()) == settings
