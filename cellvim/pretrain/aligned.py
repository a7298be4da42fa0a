"""Objective `align`: hidden patches are predicted, and two views of the same biology look alike."""

from typing import Any

import torch
from torch import Tensor

from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, CropSource
from cellvim.dataset.labels import PERTURBATION
from cellvim.dataset.pairs import PairedDraws
from cellvim.errors import UsageError
from cellvim.folds import hash_of
from cellvim.model.alignment import Projector, alignment_loss, gather_views
from cellvim.pretrain.objective import MaskedObjective

FEWEST_SAMPLES = 4


class AlignedObjective(MaskedObjective):
    """The masked loss, plus the weighted InfoNCE of pairs, on the mean over the tokens that each view shows.

    Negatives are the other pairs of the batch over all ranks; where a step is computed in parts, those of the
    part, as memory holds no more.

    Args:
        settings: The run.
        channels: Stains that get rows of their own.

    Raises:
        UsageError: A part of a step holds fewer than two whole pairs, and nothing could be told apart.
    """

    title = "Aligned masked autoencoder"
    loss_name = "loss on hidden patches, and of alignment"
    reference_loss = None

    def __init__(self, settings: PretrainSettings, channels: tuple[str, ...]) -> None:
        super().__init__(settings, channels)
        part = settings.batch_size // settings.engine.accumulate
        if part < FEWEST_SAMPLES or part % 2:
            found = f"a batch of {settings.batch_size} in {settings.engine.accumulate} part(s) is not made of pairs"
            raise UsageError(
                found, hint=f"each part needs an even number of crops, {FEWEST_SAMPLES} at least"
            )
        self.alignment = settings.alignment
        if settings.alignment.positives == "replicate":
            self.labels_used = PERTURBATION
        generator = torch.Generator().manual_seed(hash_of("projector", salt=str(settings.seed)) >> 1)
        self.projector = Projector(settings.model.width, generator=generator)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if batch.labels is None:
            msg = "a batch for the alignment does not say what it shows"
            raise ValueError(msg)
        result = self.reconstruct(batch)
        projected, identity = gather_views(self.projector(result.latent.mean(dim=1)), batch.labels)
        alignment = alignment_loss(projected, identity, temperature=self.alignment.temperature)
        return {
            "loss": result.loss + self.alignment.weight * alignment,
            "pixel_loss": result.pixel_loss,
            "fourier_loss": result.fourier_loss,
            "alignment_loss": alignment,
        }

    def write_results(self, source: CropSource, settings: PretrainSettings) -> dict[str, Any]:
        if not isinstance(source.draws, PairedDraws):
            raise TypeError(source.draws)
        return {**super().write_results(source, settings), "partners": source.draws.count_kinds()}
