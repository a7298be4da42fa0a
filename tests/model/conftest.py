"""Toy models and images for the tests of the model, and its command line."""

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cellvim.cli import app
from cellvim.config import ModelSettings
from cellvim.model import ChannelEncoder, MaskedAutoencoder
from cellvim.terminal import run_to_exit_code

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")


@pytest.fixture(scope="session")
def settings() -> ModelSettings:
    return ModelSettings(
        width=16, depth=4, patch_px=8, state_size=4, decoder_width=16, decoder_depth=2, position_grid=4
    )


@pytest.fixture(params=["channel-first", "spatial-first", "alternating"])
def autoencoder(request: pytest.FixtureRequest, settings: ModelSettings) -> MaskedAutoencoder:
    """A toy model, weights large enough that no term hides."""
    ordered = settings.model_copy(update={"scan_order": request.param})
    model = MaskedAutoencoder(ordered, STAINS, seed=7).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.3)
    return model


@pytest.fixture
def encoder(autoencoder: MaskedAutoencoder) -> ChannelEncoder:
    return autoencoder.encoder


@pytest.fixture
def image() -> Tensor:
    """Three samples, five stains, 4 x 6 patches of 8 px."""
    generator = torch.Generator().manual_seed(9)
    return torch.randn(3, 5, 32, 48, generator=generator, dtype=torch.float64)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, in this process; gives its exit code."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr("signal.signal", lambda *_: None)
        monkeypatch.setattr(sys, "argv", ["cellvim", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run_to_exit_code(app)
        return int(ended.value.code or 0)

    return call
