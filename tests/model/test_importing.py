"""Published checkpoints become models of ours: same features, right pooling, and nothing guessed in silence."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor

from cellvim.cli import app
from cellvim.config import ImportSettings
from cellvim.errors import ExitCode, InputError, NotFoundError, OutputExistsError, UsageError
from cellvim.model import ChannelEncoder, ModelCard, load_encoder
from cellvim.model.importing import ImportSummary, import_checkpoint
from cellvim.model.published import build
from cellvim.terminal import run_to_exit_code
from tests.model.published_definition import run_dense
from tests.model.published_states import CHANNEL, IMAGE, MASKED, random_image, random_state
from tests.model.test_oracle import part, read

TOLERANCE = 1e-4
"""Relative error in the 2-norm of a computation in float32."""
STAINS = ("DNA", "ER", "RNA", "AGP", "Mito", "BF")
UNPOOLED = {**CHANNEL, "if_cls_token": True}


def lightning(path: Path, state: dict[str, Tensor], hyper: object = None, **more: object) -> Path:
    """Write what Lightning writes: names prefixed, other parts of the training beside."""
    content = {
        "epoch": 3, "global_step": 1200, "pytorch-lightning_version": "2.4.0", "loops": {}, "callbacks": {},
        "state_dict": {f"backbone.{name}": value for name, value in state.items()} | {"criterion.weight": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3}]}],
        **more,
    }  # fmt: skip
    if hyper is not None:
        content["hyper_parameters"] = hyper
    torch.save(content, path)
    return path


def imported(file: Path, **flags: Any) -> tuple[ChannelEncoder, ModelCard, ImportSummary]:
    out = file.parent / f"{file.stem}_model"
    summary = import_checkpoint(ImportSettings(file=file, out=out, **flags))
    return *load_encoder(out), summary


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).norm() <= TOLERANCE * expected.norm()


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[dict[str, Any]], object]]:
    """What hyper-parameters are kept in, as the packages that are not installed here pickle them."""

    def module(name: str, *classes: type) -> None:
        for depth in range(1, name.count(".") + 2):
            parent = ".".join(name.split(".")[:depth])
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent, ModuleType(parent)))
        for each in classes:
            each.__module__, each.__qualname__ = name, each.__name__
            monkeypatch.setattr(sys.modules[name], each.__name__, each, raising=False)

    class DictConfig(SimpleNamespace):
        __reduce__ = object.__reduce__

    class AnyNode(SimpleNamespace):
        __reduce__ = object.__reduce__

    class AttributeDict(dict[str, Any]):
        pass

    module("lightning.fabric.utilities.data", AttributeDict)
    module("omegaconf.dictconfig", DictConfig)
    module("omegaconf.nodes", AnyNode)

    def omegaconf(words: dict[str, Any]) -> object:
        config = DictConfig(_metadata={"ref_type": Any, "object_type": dict}, _parent=None)
        config._content = {word: AnyNode(_val=value, _parent=config) for word, value in words.items()}
        return config

    return {
        "dict": lambda words: {"model": {"backbone": words}, "root": Path("/data")},
        "Namespace": lambda words: argparse.Namespace(**words),
        "Namespace in dict": lambda words: {"args": argparse.Namespace(**words)},
        "AttributeDict": AttributeDict,
        "OmegaConf": lambda words: {"config": omegaconf(words)},
    }


@pytest.mark.parametrize("name", ["channel_mean", "channel_subset", "image_mean"])
def test_features_and_tokens_are_those_of_the_published_file(shared: Path, name: str, tmp_path: Path) -> None:
    tensors, config = read(shared / "oracle" / f"{name}.safetensors")
    is_channel = config["model"] == "FastChannelVim"
    names = tuple(f"stain {row}" for row in range(config["channels"])) if is_channel else ()
    file = lightning(tmp_path / "file.ckpt", part(tensors, "state"), config)
    encoder, card, _ = imported(file, channels=names)
    assert card.channels == (names or ("red", "green", "blue"))

    ids = tensors.get("input/channel_ids")
    channels = [card.channels[row] for row in ids] if ids is not None else list(card.channels)
    image = tensors["input/image"].float()
    assert_close(encoder.features(image, channels, pool="all"), tensors["output/features"].float())
    if "output/tokens" in tensors:
        tokens = encoder.tokens(image, channels).permute(0, 2, 3, 1, 4).flatten(1, 3)
        assert_close(tokens, tensors["output/tokens"].float())


def test_a_masked_model_gets_its_pooling_and_its_scale(shared: Path, tmp_path: Path) -> None:
    tensors, config = read(shared / "oracle" / "mae_v1.safetensors")
    encoder, card, summary = imported(lightning(tmp_path / "file.ckpt", part(tensors, "state"), config))
    model = card.model
    assert (model.pool_divisor, model.dense_pool_scale, model.backward_rows) == ("width", 0.25, "published")
    assert (model.tokenization, card.objective, card.mask_ratio) == ("joint", "mae", 0.75)
    assert "decoder_pred.weight" in summary.left_out

    image, hidden = tensors["input/image"], tensors["output/mask"].view(-1, 4, 4, 1).bool()
    patches = encoder.cut(image, encoder.arrange(card.channels))
    assert_close(encoder.encode_kept(patches, (), hidden), tensors["output/latent"])


@pytest.mark.parametrize("ratio", [0.75, 0.5])
def test_whole_rows_look_to_a_masked_model_as_it_learned_them(ratio: float, tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(MASKED))
    encoder, card, summary = imported(file, mask_ratio=ratio)
    assert card.model.dense_pool_scale == 1 - ratio
    assert summary.given == {"mask_ratio": ratio}
    assert "mask_ratio" in imported(lightning(tmp_path / "other.ckpt", random_state(MASKED)))[2].assumed
    # With the scale taken back it is the plain model of whole images, which has been proven.
    plain = {
        "model": "FastVim",
        **{word: MASKED[word] for word in ("img_size", "patch_size", "depth", "channels")},
    }
    names = [name for name in random_state(MASKED) if not name.startswith(("decoder", "mask_token"))]
    state = {name: random_state(MASKED)[name] for name in names}
    image = random_image(MASKED, 3)
    settings = card.model.model_copy(update={"dense_pool_scale": 1.0})
    unscaled = ChannelEncoder(settings, card.channels, generator=torch.Generator()).double()
    unscaled.load_state_dict(encoder.state_dict())
    assert_close(unscaled.features(image, card.channels, pool="all"), build(plain, state).features(image))
    assert not torch.allclose(
        encoder.double().features(image, card.channels, pool="all"), build(plain, state)(image)
    )


@pytest.mark.parametrize("kind", ["dict", "Namespace", "Namespace in dict", "AttributeDict", "OmegaConf"])
def test_words_are_found_wherever_a_training_keeps_them(kind: str, containers: Any, tmp_path: Path) -> None:
    words = {"collapse_method": "max", "scan_order": "Spatial-First", "scanpath_type": "colwise", "lr": 1e-3}
    config = {**CHANNEL, **words}
    state = random_state(CHANNEL)
    file = lightning(tmp_path / "file.ckpt", state, containers[kind](words))
    encoder, card, summary = imported(file, channels=STAINS)
    assert summary.found == {word: value for word, value in words.items() if word != "lr"}
    assert (card.model.pool, card.model.scan_order, card.model.scan_path) == (
        "max",
        "spatial-first",
        "colwise",
    )
    image = random_image(CHANNEL, 6)
    expected = run_dense(config, state, image)["features"]
    assert_close(encoder.double().features(image, STAINS, pool="all"), expected)


def test_flags_win_and_what_nothing_told_is_said(tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(CHANNEL), {"collapse_method": "max"})
    _, card, summary = imported(file, channels=STAINS, pool="mean", scan_order="spatial-first")
    assert (card.model.pool, card.model.scan_order) == ("mean", "spatial-first")
    assert summary.given == {"collapse_method": "mean", "scan_order": "spatial-first"}
    assert summary.assumed == {"scanpath_type": "rowwise", "rotate_every_block": True, "img_size": "32 x 32"}
    assert "assumed: scanpath_type rowwise; --scan-path says otherwise" in str(summary)


def test_a_word_with_two_values_is_asked_about(tmp_path: Path) -> None:
    hyper = {"student": {"scan_order": "Channel-First"}, "teacher": {"scan_order": "Spatial-First"}}
    file = lightning(tmp_path / "file.ckpt", random_state(CHANNEL), hyper)
    with pytest.raises(InputError, match="scan_order more than once") as caught:
        imported(file, channels=STAINS)
    assert "--scan-order" in caught.value.hint
    assert imported(file, channels=STAINS, scan_order="channel-first")[1].model.scan_order == "channel-first"


@pytest.mark.parametrize(
    ("config", "word", "values"),
    [
        (CHANNEL, "mask_ratio", (0.75, 0.5)),
        (IMAGE, "scan_order", ("Channel-First", "Spatial-First")),
        (MASKED, "scan_order", ("Channel-First", "Spatial-First")),
        (UNPOOLED, "collapse_method", ("mean", "max")),
        (UNPOOLED, "rotate_every_block", (True, False)),
        (UNPOOLED, "final_pool_type", ("mean", "all")),
    ],
)
def test_a_word_left_from_another_training_may_contradict_itself(
    config: dict[str, Any], word: str, values: tuple[object, ...], tmp_path: Path
) -> None:
    names = STAINS if config["model"] == "FastChannelVim" else ()
    hyper = [{word: value} for value in values]
    _, card, summary = imported(
        lightning(tmp_path / "file.ckpt", random_state(config), hyper), channels=names
    )
    silent = lightning(tmp_path / "silent.ckpt", random_state(config), [])
    assert card.model == imported(silent, channels=names)[1].model
    assert word not in summary.found | summary.assumed


def test_a_masked_model_with_two_ways_to_pool_is_asked_about(tmp_path: Path) -> None:
    hyper = [{"collapse_method": "mean"}, {"collapse_method": "max"}]
    file = lightning(tmp_path / "file.ckpt", random_state(MASKED), hyper)
    with pytest.raises(InputError, match="collapse_method more than once") as caught:
        imported(file)
    assert "--pool" in caught.value.hint
    assert imported(file, pool="mean")[1].model.pool == "mean"


@pytest.mark.parametrize(
    ("config", "word", "spellings"),
    [
        (IMAGE, "collapse_method", ("Max", "max", "MAX", "mAX", "maX")),
        (IMAGE, "rotate_every_block", (False, "false", 0)),
        (IMAGE, "img_size", (32, "32", [32, 32.0])),
        (IMAGE, "final_pool_type", ("Mean", "mean")),
        (IMAGE, "flip_img_sequences_ratio", (-1, 0.0)),
        (MASKED, "mask_ratio", ("0.5", 0.5)),
    ],
)
def test_two_spellings_of_one_meaning_are_one(
    config: dict[str, Any], word: str, spellings: tuple[object, ...], tmp_path: Path
) -> None:
    def read(values: tuple[object, ...]) -> ModelCard:
        hyper = [{word: value} for value in values]
        return imported(lightning(tmp_path / "file.ckpt", random_state(config), hyper), overwrite=True)[1]

    cards = [read(values) for values in (spellings[:1], spellings, spellings[::-1])]
    assert cards[0].model == cards[1].model == cards[2].model


def test_a_file_that_contains_itself_is_read(tmp_path: Path) -> None:
    hyper: dict[str, Any] = {"collapse_method": "max"}
    hyper["self"] = [hyper, hyper]
    assert imported(lightning(tmp_path / "f.ckpt", random_state(IMAGE), hyper))[1].model.pool == "max"


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    trained, averaged = random_state(IMAGE), random_state(IMAGE, seed=1)
    file = lightning(tmp_path / "file.ckpt", trained, state_dict_ema=averaged)
    for flags, expected in (({}, averaged), ({"use_ema": False, "overwrite": True}, trained)):
        encoder, _, summary = imported(file, **flags)
        assert torch.equal(encoder.norm.weight, expected["norm_f.weight"].float())
        assert ("averaged" in summary.model) == ("use_ema" not in flags)


def test_unpooled_models_are_known_by_their_class_token(tmp_path: Path) -> None:
    config, state = UNPOOLED, random_state(UNPOOLED)
    encoder, card, summary = imported(lightning(tmp_path / "file.ckpt", state), channels=STAINS)
    assert card.model.backbone == "channel_vim"
    assert "collapse_method" not in summary.assumed
    image = random_image(config, 6)
    expected = run_dense(config, state, image)["features"]
    assert_close(encoder.double().features(image, STAINS, pool="all"), expected)


@pytest.mark.parametrize("tell", ["file", "flag"])
def test_a_rectangular_table_of_positions(tell: str, tmp_path: Path) -> None:
    config = {**IMAGE, "img_size": [24, 40]}
    state = random_state(config)
    hyper = {"data": {"img_size": 512}, "model": {"img_size": [24, 40]}} if tell == "file" else None
    file = lightning(tmp_path / "file.ckpt", state, hyper)
    encoder, card, _ = imported(file, image_px=None if tell == "file" else (24, 40))
    assert (card.model.position_grid, card.crop_px) == ((3, 5), 24)
    image = random_image(config, 3)
    expected = run_dense(config, state, image)["features"]
    assert_close(encoder.double().features(image, card.channels, pool="all"), expected)


def test_positions_that_fill_no_square_need_the_image_size(tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state({**IMAGE, "img_size": [24, 40]}))
    with pytest.raises(InputError, match="15 positions, which are no square grid"):
        imported(file)


@pytest.mark.parametrize("shape", [(96, 96), (64, 96), (90, 70)])
def test_images_of_other_sizes_are_taken(shape: tuple[int, int], tmp_path: Path) -> None:
    config = {**CHANNEL, "img_size": 64}
    encoder, card, _ = imported(lightning(tmp_path / "file.ckpt", random_state(config)), channels=STAINS)
    assert (card.crop_px, encoder.address.position.shape) == (64, (8, 8, 20))
    image = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokens(image, ("Mito", "DNA"))
    assert tokens.shape == (1, 2, -(-shape[0] // 8), -(-shape[1] // 8), 20)
    assert tokens.isfinite().all()


@pytest.mark.parametrize(
    ("config", "names", "message"),
    [
        (CHANNEL, (), "6 rows in its table of channels, 0 names"),
        (CHANNEL, STAINS[:5], "5 names were given"),
        (CHANNEL, (*STAINS[:5], " dna"), "not distinct"),
        (CHANNEL, (*STAINS[:5], "unknown"), "not distinct"),
        ({**IMAGE, "channels": 5}, (), "5 colours, 0 names"),
    ],
)
def test_channels_are_never_guessed(
    config: dict[str, Any], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(config))
    with pytest.raises(UsageError, match=message):
        imported(file, channels=names)
    assert not (tmp_path / "file_model").exists()


def test_other_models_are_refused_by_name(tmp_path: Path) -> None:
    state = random_state(IMAGE)
    state["layers.1.mixer.A_log_b"] = state.pop("layers.1.mixer.A_b_log")
    state["norm_f.weight"] = torch.ones(7)
    with pytest.raises(InputError) as caught:
        imported(lightning(tmp_path / "file.ckpt", state))
    assert "missing: layers.1.mixer.A_b_log (close to layers.1.mixer.A_log_b)" in caught.value.found
    assert "norm_f.weight (7,) instead of (20,)" in caught.value.found
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight is not among the 1 tensors"):
        imported(lightning(tmp_path / "resnet.ckpt", {"layer1.weight": torch.ones(2)}))
    assert {path.name for path in tmp_path.iterdir()} == {"file.ckpt", "resnet.ckpt"}


@pytest.mark.parametrize(
    "content", [torch.ones(2), {}, {"state_dict": {}}, {"state_dict": 3}, {"state_dict": {"a": 1}}]
)
def test_files_without_weights_are_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.ckpt")
    with pytest.raises(InputError):
        imported(tmp_path / "file.ckpt")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint"):
        imported(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_bare_weights_of_any_precision(dtype: torch.dtype, options: dict[str, Any], tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in random_state(IMAGE).items()}
    state["norm_f.weight"] = torch.nn.Parameter(state["norm_f.weight"])
    torch.save(state, tmp_path / "weights.pth", **options)
    encoder, _, _ = imported(tmp_path / "weights.pth")
    assert torch.equal(encoder.norm.weight, state["norm_f.weight"].float())


def test_the_card_says_whose_weights_they_are(tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(IMAGE))
    _, card, _ = imported(file)
    record = json.loads((tmp_path / "file_model" / "run.json").read_text())
    assert card.origin is not None
    assert record["inputs"][str(file)] in card.origin
    assert card.steps == 1200
    page = (tmp_path / "file_model" / "README.md").read_text()
    assert "imported from file.ckpt (sha256 " in page
    assert "under the licence that their authors chose" in page


def test_another_model_is_not_replaced(tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(IMAGE))
    imported(file)
    weights = tmp_path / "file_model" / "model.safetensors"
    before = weights.read_bytes()
    imported(file)
    assert weights.read_bytes() == before
    with pytest.raises(OutputExistsError):
        imported(file, pool="max")
    assert weights.read_bytes() == before
    assert imported(file, pool="max", overwrite=True)[1].model.pool == "max"


def test_import_then_embed(
    make_plate: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["cellvim", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_to_exit_code(app)
        assert int(ended.value.code or 0) == ExitCode.DONE
        return capsys.readouterr().out

    file = lightning(tmp_path / "file.ckpt", random_state(CHANNEL), {"collapse_method": "max"})
    flags = ("--channels", ",".join(STAINS), "--image-px", "32x32", "--json")
    summary = json.loads(run("import-checkpoint", file, "--out", tmp_path / "model", *flags))
    assert summary["found"] == {"collapse_method": "max"}
    plate = make_plate(channels=("DNA", "ER", "Mito"))
    table = tmp_path / "wells.parquet"
    run("embed", plate.path, "--model", tmp_path / "model", "--out", table, "--device", "cpu")
    features = pl.read_parquet(table).select(pl.selectors.starts_with("emb_"))
    assert features.shape == (4, 60)
    assert features.to_numpy().std(0).min() > 0
