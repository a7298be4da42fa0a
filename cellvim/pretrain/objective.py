"""What a run learns. The training loop knows an objective only as a module from a batch to a loss."""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, CropSource
from cellvim.model import (
    ChannelEncoder,
    Mask,
    MaskedAutoencoder,
    Reconstruction,
    draw_channels,
    draw_mask,
)
from cellvim.pretrain.pictures import draw_reconstructions


class Objective(nn.Module, ABC):
    """A model with what it minimises."""

    encoder: ChannelEncoder
    """The part that `embed` uses."""
    labels_used: str | None = None
    """Column of the plate map that takes part in training."""
    title: ClassVar[str] = "Encoder"
    """What it is, at the head of the run's page."""
    loss_name: ClassVar[str] = "loss"
    """Axis of the loss curve."""
    reference_loss: tuple[float, str] | None = None
    """Loss of a model that knows nothing, and what it does."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute "loss" and its parts, each a mean over the samples of the batch.

        A step's batch may come in slices of equal size, one after the other and dealt out to ranks: the loss of
        the step is the mean over slices. It is the loss of the whole batch only if that of a sample asks for no
        other sample; one that relates samples, as `align` does, must gather a slice's views over ranks, and
        relates those of one part of the step only.
        """

    def write_results(self, source: CropSource, settings: PretrainSettings) -> dict[str, Any]:
        """Write into `settings.out` what the objective leaves besides the encoder; called on the moving average.

        Returns:
            Facts for `run.json`.
        """
        del source, settings
        return {}


class MaskedObjective(Objective):
    """Predict hidden patches and hidden stains.

    Args:
        settings: The run.
        channels: Stains that get rows of their own.
    """

    title = "Masked autoencoder"
    loss_name = "loss on hidden patches"
    reference_loss: tuple[float, str] | None = (1.0, "predicting the field's mean")

    def __init__(self, settings: PretrainSettings, channels: tuple[str, ...]) -> None:
        super().__init__()
        self.masking = settings.masking
        self.seed = settings.seed
        self.autoencoder = MaskedAutoencoder(settings.model, channels, seed=settings.seed)

    @property
    def encoder(self) -> ChannelEncoder:  # type: ignore[override]
        return self.autoencoder.encoder

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        result = self.reconstruct(batch)
        return {
            "loss": result.loss, "pixel_loss": result.pixel_loss, "fourier_loss": result.fourier_loss
        }  # fmt: skip

    def reconstruct(self, batch: Batch) -> Reconstruction:
        """Hide what this step hides of these samples, and predict it."""
        shown = draw_channels(self.masking, channels=len(batch.channels), seed=self.seed, step=batch.step)
        mask = self._draw_mask(batch, channels=len(shown)).to(batch.images.device)
        names = [batch.channels[channel] for channel in shown]
        result: Reconstruction = self.autoencoder(
            batch.images[:, list(shown)], names, mask, self.masking.fourier_weight
        )
        return result

    def write_results(self, source: CropSource, settings: PretrainSettings) -> dict[str, Any]:
        draw_reconstructions(
            self.autoencoder, source.batch(0, range(1)), settings, settings.out / "reconstructions.png"
        )
        return {}

    def _draw_mask(self, batch: Batch, *, channels: int) -> Mask:
        """Draw for the whole step and keep the slice: a sample's mask is the same however a step is divided."""
        patch_px = self.encoder.settings.patch_px
        grid = (batch.images.shape[2] // patch_px, batch.images.shape[3] // patch_px)
        whole = draw_mask(
            self.masking, batch=batch.size, channels=channels, grid=grid, seed=self.seed, step=batch.step
        )
        return replace(whole, hidden=whole.hidden[batch.first : batch.first + len(batch.images)])
