"""Published models at toy size: outputs and every gradient, by published name, on every backend and in float32."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from cellvim.model import published
from tests.model.kernels import use_kernel
from tests.model.published_definition import run_dense, run_masked

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4}
"""Relative error in the 2-norm that the specification asks for, by the precision of the computation."""

PATHS = [
    *((kernel, dtype) for kernel in ("naive", "torch") for dtype in (torch.float64, torch.float32)),
    ("cpp", torch.float32),
    pytest.param("triton", torch.float32, marks=pytest.mark.interpreter),
]
"""Backends and the precision that each can compute in."""

FILES = ("channel_mean", "channel_subset", "image_mean", "mae_v1")


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["config"])


def part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(f"{kind}/"): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{kind}/")
    }


def assert_close(actual: Tensor | None, expected: Tensor, name: str, tolerance: float) -> None:
    assert actual is not None, name
    actual, expected = actual.double(), expected.double()
    assert actual.shape == expected.shape, name
    assert (actual - expected).norm() <= tolerance * expected.norm(), name


@pytest.mark.parametrize(("kernel", "dtype"), PATHS, ids=str)
@pytest.mark.parametrize("name", FILES)
def test_outputs_and_gradients_are_reproduced(
    shared: Path, name: str, dtype: torch.dtype, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_kernel(kernel, monkeypatch)
    tensors, config = read(shared / "oracle" / f"{name}.safetensors")
    model = published.build(config, part(tensors, "state")).to(dtype)
    image = tensors["input/image"].to(dtype).requires_grad_()

    if "input/noise" in tensors:
        result = model(image, noise=tensors["input/noise"])
        outputs = {
            "pred": result.prediction,
            "mask": result.mask,
            "latent": result.latent,
            "loss": result.loss,
        }
    else:
        ids = tensors.get("input/channel_ids")
        logits = model(image, ids)
        outputs = {
            "logits": logits,
            "features": model.features(image, ids),
            "tokens": model.tokens(image, ids),
        }
        outputs["loss"] = logits.log_softmax(-1)[:, 0].sum()
    outputs["loss"].backward()

    # The masked file was made in float32, so that is all it can be held to.
    tolerance = TOLERANCE[torch.float32 if tensors["input/image"].dtype == torch.float32 else dtype]
    expected = part(tensors, "output")
    assert expected.keys() <= outputs.keys()
    for output, value in expected.items():
        assert_close(outputs[output], value, output, tolerance)
    assert_close(image.grad, tensors["input_grad/image"], "image", tolerance)
    gradients = {parameter: value.grad for parameter, value in model.named_parameters()}
    for parameter, value in part(tensors, "grad").items():
        assert_close(gradients[parameter], value, parameter, tolerance)


@pytest.mark.parametrize("name", FILES)
def test_the_definition_that_variants_are_judged_by_is_itself_right(shared: Path, name: str) -> None:
    tensors, config = read(shared / "oracle" / f"{name}.safetensors")
    weights = {key: value.requires_grad_() for key, value in part(tensors, "state").items()}
    image = tensors["input/image"].requires_grad_()
    if "input/noise" in tensors:
        outputs = run_masked(config, weights, image, tensors["input/noise"])
    else:
        outputs = run_dense(config, weights, image, tensors.get("input/channel_ids"))
    outputs["loss"].backward()

    tolerance = TOLERANCE[image.dtype]
    for output, value in part(tensors, "output").items():
        assert_close(outputs[output], value, output, tolerance)
    assert_close(image.grad, tensors["input_grad/image"], "image", tolerance)
    for parameter, value in part(tensors, "grad").items():
        assert_close(weights[parameter].grad, value, parameter, tolerance)
