"""Variants of the published models without a file of their own, against their definition in straight lines."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cellvim.config import PRESETS, ModelSettings, Preset
from cellvim.errors import InputError
from cellvim.model import ChannelEncoder, published
from tests.model.kernels import use_kernel
from tests.model.published_definition import grid_of, run_dense, run_masked
from tests.model.published_states import CHANNEL, IMAGE, MASKED, random_image, random_state, shapes_of

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative error in the 2-norm between the definition in float64 and a computation in either precision."""
PATHS = [
    ("naive", torch.float64),
    ("torch", torch.float64),
    ("cpp", torch.float32),
    pytest.param("triton", torch.float32, marks=pytest.mark.interpreter),
]

RECTANGLE = {"img_size": [24, 40]}
TURNED = {"scanpath_type": "colwise", **RECTANGLE}

DENSE = {
    "max": {**CHANNEL, "collapse_method": "max"},
    "spatial-first": {**CHANNEL, "scan_order": "Spatial-First"},
    "rectangular": {**CHANNEL, **RECTANGLE, "depth": 3},
    "colwise": {**CHANNEL, **TURNED, "depth": 3},
    "colwise spatial-first max": {**CHANNEL, **TURNED, "scan_order": "Spatial-First", "collapse_method": "max"},
    "patches of 4 px": {**CHANNEL, "img_size": [12, 20], "patch_size": 4, "stride": 4},
    "no inner norm": {**CHANNEL, "use_norm_after_ssm": False},
    "not rotated": {**CHANNEL, **RECTANGLE, "rotate_every_block": False},
    "not rotated, colwise": {**CHANNEL, **TURNED, "rotate_every_block": False},
    "no positions": {**CHANNEL, **RECTANGLE, "if_abs_pos_embed": False},
    "unpooled": {**CHANNEL, **RECTANGLE, "if_cls_token": True},
    "unpooled, colwise": {**CHANNEL, **TURNED, "if_cls_token": True},
    "unpooled, spatial-first": {**CHANNEL, **TURNED, "if_cls_token": True, "scan_order": "Spatial-First"},
    "unpooled, spare position": {**CHANNEL, **RECTANGLE, "if_cls_token": True, "spare": 1},
    "unpooled, no positions": {**CHANNEL, "if_cls_token": True, "if_abs_pos_embed": False},
    "image, rectangular": {**IMAGE, **RECTANGLE},
    "image, colwise max": {**IMAGE, **TURNED, "collapse_method": "max"},
    "image, unpooled": {**IMAGE, **RECTANGLE, "if_cls_token": True},
    "image, unpooled, spare position": {**IMAGE, **TURNED, "if_cls_token": True, "spare": 1},
}  # fmt: skip
HIDDEN = {
    "0.5": {**MASKED, "mask_ratio": 0.5},
    "0.9": {**MASKED, "mask_ratio": 0.9},
    "pixels as they are": {**MASKED, "norm_pix_loss": False},
    "rectangular": {**MASKED, **RECTANGLE, "depth": 3, "decoder_depth": 1},
    "colwise": {**MASKED, **TURNED, "depth": 3},
    "not rotated": {**MASKED, **RECTANGLE, "rotate_every_block": False},
    "patches of 4 px": {**MASKED, "img_size": 24, "patch_size": 4, "stride": 4},
    "no inner norm": {**MASKED, "use_norm_after_ssm": False},
}


def words(config: dict[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in config.items() if word != "spare"}


def assert_same(actual: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    for name, value in expected.items():
        mine = actual[name]
        if value is None:
            # What the definition never touches can have no influence here.
            assert mine is None or not mine.any(), name
            continue
        assert mine is not None, name
        # A mask is whole numbers: exact, as far as float64 can tell.
        tolerance = TOLERANCE.get(mine.dtype, TOLERANCE[torch.float64])
        assert (mine - value).norm() <= tolerance * value.norm(), name


@pytest.mark.parametrize(("kernel", "dtype"), PATHS, ids=str)
@pytest.mark.parametrize("name", DENSE)
def test_dense_variants_follow_their_definition(
    name: str, kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel(kernel, monkeypatch)
    config = words(DENSE[name])
    state = random_state(DENSE[name])
    ids = (4, 0, 5) if config["model"] == "FastChannelVim" else None
    image = random_image(config, 3)

    twin = {key: value.clone().requires_grad_() for key, value in state.items()}
    twin_image = image.clone().requires_grad_()
    expected = run_dense(config, twin, twin_image, ids)
    expected["loss"].backward()

    model = published.build(config, state).to(dtype)
    image = image.to(dtype).requires_grad_()
    logits = model(image, ids)
    outputs = {"logits": logits, "features": model.features(image, ids), "tokens": model.tokens(image, ids)}
    outputs["loss"] = logits.log_softmax(-1)[:, 0].sum()
    outputs["loss"].backward()

    assert_same(outputs, expected)
    assert_same({"image": image.grad}, {"image": twin_image.grad})
    gradients = {parameter: value.grad for parameter, value in model.named_parameters()}
    assert_same(gradients, {key: value.grad for key, value in twin.items()})


@pytest.mark.parametrize(("kernel", "dtype"), PATHS, ids=str)
@pytest.mark.parametrize("name", HIDDEN)
def test_masked_variants_follow_their_definition(
    name: str, kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel(kernel, monkeypatch)
    config = HIDDEN[name]
    state = random_state(config)
    image = random_image(config, 3)
    rows, cols = grid_of(config)
    noise = torch.rand(2, rows * cols, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    twin = {key: value.clone().requires_grad_() for key, value in state.items()}
    twin_image = image.clone().requires_grad_()
    expected = run_masked(config, twin, twin_image, noise)
    expected["loss"].backward()

    model = published.build(config, state).to(dtype)
    image = image.to(dtype).requires_grad_()
    result = model(image, noise=noise)
    result.loss.backward()

    outputs = {"loss": result.loss, "pred": result.prediction, "mask": result.mask, "latent": result.latent}
    assert_same(outputs, expected)
    assert_same({"image": image.grad}, {"image": twin_image.grad})
    gradients = {parameter: value.grad for parameter, value in model.named_parameters()}
    fixed = {"pos_embed", "decoder_pos_embed"}
    assert {key for key, value in gradients.items() if value is None} == fixed
    assert_same(gradients, {key: value.grad for key, value in twin.items() if key not in fixed})


@pytest.mark.parametrize(
    "config", [DENSE["unpooled, spare position"], HIDDEN["colwise"]], ids=["dense", "masked"]
)
def test_names_shapes_and_values_are_those_of_the_file(config: dict[str, Any]) -> None:
    state = random_state(config)
    model = published.build(words(config), {f"state/{name}": tensor for name, tensor in state.items()})
    saved = model.state_dict()
    assert saved.keys() == state.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in state.items())

    other = published.build(words(config), random_state(config, seed=5))
    other.load_state_dict(saved)
    assert all(torch.equal(tensor, state[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("prefix", ["module.", "state/module.backbone.", "_orig_mod."])
def test_a_prefix_of_all_names_is_dropped(prefix: str) -> None:
    state = random_state(CHANNEL)
    model = published.build(CHANNEL, {f"{prefix}{name}": tensor for name, tensor in state.items()})
    assert model.state_dict().keys() == state.keys()


def test_a_prefix_of_some_names_hides_nothing() -> None:
    state = {f"module.{name}": tensor for name, tensor in random_state(CHANNEL).items()}
    with pytest.raises(
        InputError, match=r"1 names lack the prefix module\. of the model, such as loss\.weight"
    ):
        published.build(CHANNEL, state | {"loss.weight": torch.ones(2)})
    with pytest.raises(InputError, match="loss is a dict, a tensor is expected"):
        published.build(CHANNEL, state | {"loss": {}})


def test_channel_ids_choose_rows_of_the_table() -> None:
    model = published.build(CHANNEL, random_state(CHANNEL))
    image = random_image(CHANNEL, 2)
    assert not torch.allclose(model(image, (0, 1)), model(image, (4, 5)))
    assert torch.equal(model(image), model(image, torch.tensor([0, 1])))


@pytest.mark.parametrize("ids", [(0,), (0, 6), (-1, 0)])
def test_ids_that_address_nothing_are_refused(ids: tuple[int, ...]) -> None:
    model = published.build(CHANNEL, random_state(CHANNEL))
    with pytest.raises(InputError, match="do not address 2 channels in a table of 6"):
        model(random_image(CHANNEL, 2), ids)


@pytest.mark.parametrize("ids", [(0, 0), torch.tensor([5, 5])])
def test_a_channel_cannot_come_twice(ids: Any) -> None:
    model = published.build(CHANNEL, random_state(CHANNEL))
    for call in (model, model.features, model.tokens):
        with pytest.raises(InputError, match="name a row of the table twice"):
            call(random_image(CHANNEL, 2), ids)


def test_an_image_model_takes_all_colours_and_no_ids() -> None:
    model = published.build(IMAGE, random_state(IMAGE))
    with pytest.raises(InputError, match="3 colours was given 2 channels"):
        model(random_image(IMAGE, 2))
    with pytest.raises(InputError, match="or ids"):
        model(random_image(IMAGE, 3), (0, 1, 2))


def test_noise_of_another_grid_is_refused() -> None:
    model = published.build(MASKED, random_state(MASKED))
    with pytest.raises(InputError, match="2 images of 4 x 4 patches"):
        model(random_image(MASKED, 3), noise=torch.zeros(2, 9))


@pytest.mark.parametrize(
    ("shape", "ratio", "message"),
    [
        ((4, 32, 32), 0.75, "3 colours was given 4 channels"),
        ((3, 36, 36), 0.75, "36 x 36 px are no whole number of patches of 8 px"),
        ((3, 32, 36), 0.75, "32 x 36 px are no whole number of patches"),
        ((3, 32, 32), 0.95, "keeps none of 4 x 4 patches"),
    ],
)
def test_images_that_a_masked_model_cannot_take_are_refused(
    shape: tuple[int, ...], ratio: float, message: str
) -> None:
    model = published.build({**MASKED, "mask_ratio": ratio}, random_state(MASKED))
    with pytest.raises(InputError, match=message):
        model(torch.zeros(2, *shape, dtype=torch.float64), noise=torch.rand(2, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "Mamba2D"}, "model: 'Mamba2D' is none of"),
        ({"final_pool_type": "all"}, "final_pool_type: 'all' is a model that cellvim does not have"),
        ({"rms_norm": False}, "rms_norm: False"),
        ({"if_rope": True}, "if_rope: True"),
        ({"collapse_method": "median"}, "collapse_method: 'median' is none of mean, max"),
        ({"scanpath_type": "diagonal"}, "scanpath_type: 'diagonal'"),
        ({"stride": 4}, "stride is 4 in the configuration, but 8 in the tensors"),
        ({"depth": 3}, "depth is 3"),
        ({"depth": "two"}, "depth is 'two' in the configuration, but 2 in the tensors"),
        ({"depth": True}, "depth is True"),
        ({"embed_dim": 20.5}, "embed_dim is 20.5"),
        ({"rotate_every_block": "no"}, "rotate_every_block: 'no' is neither true nor false"),
        ({"if_abs_pos_embed": 2}, "if_abs_pos_embed: 2 is neither"),
        ({"if_rope": "True"}, "if_rope: 'True' is a model that cellvim does not have"),
        ({"scan_order": 10**5000}, "scan_order: a int of too many digits is none of"),
        ({"depth": 10**5000}, "depth is a int of too many digits"),
        ({"img_size": 10**5000}, "img_size: a int of too many digits is neither"),
        ({"img_size": [32, 32, 32]}, r"img_size: \[32, 32, 32\] is neither"),
        ({"img_size": [64, 64]}, r"pos_embed \(1, 16, 20\) instead of \(1, 64, 20\)"),
        ({"img_size": "large"}, "img_size: 'large' is neither"),
        ({"use_norm_after_ssm": False}, r"not expected: layers\.0\.mixer\.layernorm\.weight"),
        ({"if_cls_token": True}, "missing: cls_token"),
    ],
)
def test_words_that_ask_for_other_equations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        published.build({**CHANNEL, **change}, random_state(CHANNEL))


@pytest.mark.parametrize(
    "ratio", [1.5, 0, 1, "most", [0.5], True, float("nan"), pytest.param(10**5000, id="long")]
)
def test_only_a_masked_model_needs_a_mask_ratio(ratio: Any) -> None:
    with pytest.raises(InputError, match="a number between 0 and 1 is expected"):
        published.build({**MASKED, "mask_ratio": ratio}, random_state(MASKED))
    # Trained further under labels, it keeps the word and hides nothing.
    words_left = {"mask_ratio": ratio, "norm_pix_loss": "?"}
    assert published.build({**CHANNEL, **words_left}, random_state(CHANNEL)).description.mask_ratio == 0


@pytest.mark.parametrize("word", ["decoder_embed_dim", "decoder_depth"])
def test_only_a_masked_model_has_a_decoder_to_compare(word: str) -> None:
    for kind in (CHANNEL, IMAGE):
        state = random_state(kind)
        assert published.build({**kind, word: 7}, state).description == published.describe(kind, state)
    with pytest.raises(InputError, match=f"{word} is 7 in the configuration"):
        published.build({**MASKED, word: 7}, random_state(MASKED))


@pytest.mark.parametrize(
    ("method", "message"),
    [("Max", "'Max' is a model that cellvim does not have"), ("median", "none of mean, max")],
)
def test_a_masked_model_pools_by_the_mean(method: str, message: str) -> None:
    with pytest.raises(InputError, match=f"collapse_method: .*{message}"):
        published.build({**MASKED, "collapse_method": method}, random_state(MASKED))


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (
            CHANNEL,
            {"depth": "2", "embed_dim": 20.0, "patch_size": [8, 8.0], "img_size": "32", "channels": "6"},
        ),
        (CHANNEL, {"img_size": ["32", 32.0], "if_cls_token": "False", "rms_norm": "true", "if_rope": 0}),
        (CHANNEL, {"use_norm_after_ssm": 1, "rotate_every_block": "TRUE"}),
        (CHANNEL, {"collapse_method": "MEAN", "final_pool_type": "Mean"}),
        (MASKED, {"mask_ratio": "0.75", "norm_pix_loss": "True", "collapse_method": "Mean"}),
    ],
)
def test_words_mean_the_same_however_they_are_written(kind: dict[str, Any], written: dict[str, Any]) -> None:
    state = random_state(kind)
    expected = published.build(kind, state).description
    assert published.build({**kind, **written}, state).description == expected


def test_false_is_false_in_any_spelling() -> None:
    for value in (False, 0, 0.0, "false", "False", "FALSE"):
        config = {**CHANNEL, "rotate_every_block": value}
        assert not published.build(config, random_state(CHANNEL)).description.is_rotated


@pytest.mark.parametrize(
    "name", ["head.weight", "pos_embed", "patch_embed.channel_embed.weight", "layers.0.mixer.A_log"]
)
def test_tensors_without_an_axis_or_without_values_are_named(name: str) -> None:
    state = random_state(CHANNEL)
    with pytest.raises(InputError, match=rf"{name} has shape \(\), \d dimensions") as caught:
        published.build({}, state | {name: torch.tensor(1.0)})
    assert "patch_embed.proj" not in caught.value.hint
    with pytest.raises(InputError, match=rf"{name} has shape .*, which holds no values"):
        published.build({}, state | {name: state[name][..., :0]})


def test_differences_of_names_are_readable() -> None:
    state = random_state(CHANNEL)
    state["layers.1.mixer.A_logs"] = state.pop("layers.1.mixer.A_log")
    with pytest.raises(InputError) as caught:
        published.build(CHANNEL, state)
    assert "missing: layers.1.mixer.A_log (close to layers.1.mixer.A_logs)" in caught.value.found
    assert "not expected: layers.1.mixer.A_logs (close to layers.1.mixer.A_log)" in caught.value.found


def test_what_the_configuration_leaves_out_is_read_from_the_tensors() -> None:
    for config in (IMAGE, CHANNEL, MASKED):
        state = random_state(config)
        image = random_image(config, 3)
        full, bare = published.build(config, state), published.build({"norm_pix_loss": True}, state)
        if config is MASKED:
            noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
            assert torch.equal(full(image, noise=noise).loss, bare(image, noise=noise).loss)
        else:
            assert torch.equal(full(image), bare(image))


@pytest.mark.parametrize(
    ("preset", "millions", "kind"),
    [
        ("nano", 0.55, CHANNEL),
        ("tiny", 7.2, IMAGE),
        ("small", 25.8, IMAGE),
        ("small", 25.3, CHANNEL),
        ("base", 97.7, IMAGE),
        ("large", 340, IMAGE),
        ("huge", 702, IMAGE),
    ],
)
def test_presets_have_as_many_parameters_as_the_published_models(
    preset: Preset, millions: float, kind: dict[str, Any]
) -> None:
    size = PRESETS[preset]
    outputs = {"channels": 3, "num_classes": 1000} if kind is IMAGE else {"channels": 8, "num_classes": 161}
    config = {
        "model": kind["model"], "img_size": 224, "patch_size": size["patch_px"], "embed_dim": size["width"],
        "state": 16, **outputs,
    }  # fmt: skip
    settings = ModelSettings(**size, tokenization="joint" if kind is IMAGE else "per-channel")

    def count_published(depth: int) -> int:
        return count_parameters({**config, "depth": depth})

    def count_ours(depth: int) -> int:
        return count_encoder(settings.model_copy(update={"depth": depth}), outputs["channels"])

    theirs, ours = at_depth(settings.depth, count_published), at_depth(settings.depth, count_ours)
    assert theirs / 1e6 == pytest.approx(millions, abs=0.5 if millions > 100 else 0.05)
    unknown_stain = 0 if kind is IMAGE else settings.width
    assert ours - unknown_stain + (settings.width + 1) * outputs["num_classes"] == theirs
    if preset == "nano":
        assert (theirs, ours) == (count_published(settings.depth), count_ours(settings.depth))


def at_depth(depth: int, count: Callable[[int], int]) -> int:
    """Parameters of a deep model from those of one and two blocks: 64 take minutes to make."""
    one, two = count(1), count(2)
    return one + (depth - 1) * (two - one)


def count_encoder(settings: ModelSettings, channels: int) -> int:
    stains = [str(number) for number in range(channels)]
    with torch.device("meta"):
        encoder = ChannelEncoder(settings, stains, generator=torch.Generator())
    return sum(parameter.numel() for parameter in encoder.parameters())


def count_parameters(config: dict[str, Any]) -> int:
    # Tensors without memory: the largest model would take 3 GB.
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes_of(config).items()}
    return sum(parameter.numel() for parameter in published.build(config, state).parameters())
