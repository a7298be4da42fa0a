"""Two pictures that tell whether a run learned anything: its loss, and what it sees behind the mask."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from torch import Tensor

from cellvim.atomic import write_atomically
from cellvim.config import PretrainSettings
from cellvim.dataset import Batch
from cellvim.model import MaskedAutoencoder, draw_mask

INK, SOFT = "#1f4e79", "#b9cfe4"
SHOWN_CHANNELS = 8


def draw_loss_curve(
    losses: Sequence[float], path: Path, *, name: str = "loss", reference: tuple[float, str] | None = None
) -> None:
    """Plot the loss of every step, and its running mean.

    Args:
        losses: Of each step.
        path: PNG file.
        name: What the loss is of.
        reference: A loss to stand beside, and what reaches it.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.add_subplot()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color=SOFT, linewidth=0.8, label="each step")
    window = max(1, len(losses) // 25)
    if window > 1:
        mean = np.convolve(losses, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], mean, color=INK, linewidth=1.8, label=f"mean of {window} steps")
    if reference:
        axes.axhline(reference[0], color="#888888", linewidth=0.8, linestyle=":", label=reference[1])
    axes.set(xlabel="step", ylabel=name, xlim=(1, max(2, len(losses))), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


@torch.no_grad()
def draw_reconstructions(
    model: MaskedAutoencoder, batch: Batch, settings: PretrainSettings, path: Path
) -> None:
    """Show one crop: input, what the encoder saw, and the reconstruction; one row per channel."""
    device = next(model.parameters()).device
    image = batch.images[:1].to(device)
    side = settings.crops.crop_px // settings.model.patch_px
    patches_only = settings.masking.model_copy(update={"channel_steps": 0.0, "name_dropout": 0.0})
    mask = draw_mask(
        patches_only, batch=1, channels=image.shape[1], grid=(side, side), seed=settings.seed, step=0
    )
    was_training = model.training
    result = model.eval()(image, batch.channels, mask.to(device), fourier_weight=0.0)
    model.train(was_training)
    hidden = _upsample(result.hidden[0], settings.model.patch_px)
    _draw_grid(
        batch.channels, image[0].cpu().numpy(), hidden, result.prediction[0].float().cpu().numpy(), path
    )


def _upsample(hidden: Tensor, patch_px: int) -> Float[ndarray, "c y x"]:
    return hidden.cpu().numpy().astype(np.float32).repeat(patch_px, axis=1).repeat(patch_px, axis=2)


def _draw_grid(
    channels: Sequence[str],
    image: Float[ndarray, "c y x"],
    hidden: Float[ndarray, "c y x"],
    prediction: Float[ndarray, "c y x"],
    path: Path,
) -> None:
    rows = min(len(channels), SHOWN_CHANNELS)
    figure = Figure(figsize=(7.2, 1.8 * rows + 0.4), layout="constrained")
    grid = np.atleast_2d(figure.subplots(rows, 4, squeeze=False))
    for row in range(rows):
        low, high = np.percentile(image[row], (0.5, 99.5))
        seen = np.where(hidden[row] > 0, np.nan, image[row])
        filled = np.where(hidden[row] > 0, prediction[row], image[row])
        for axes, picture in zip(grid[row], (image[row], seen, prediction[row], filled), strict=True):
            _show(axes, picture, float(low), float(max(high, low + 1e-6)))
        grid[row, 0].set_ylabel(channels[row])
    titles = ("input", "seen by the encoder", "reconstruction", "hidden patches filled in")
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    _save(figure, path)


def _show(axes: Axes, picture: Float[ndarray, "y x"], low: float, high: float) -> None:
    axes.set_facecolor("#d9c7a0")
    axes.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set(xticks=[], yticks=[])


def _save(figure: Figure, path: Path) -> None:
    write_atomically(
        path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None})
    )
