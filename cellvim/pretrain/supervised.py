"""Objective `supervised`: name what the plate map says of a well, from any of its channels."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cellvim.atomic import write_json
from cellvim.config import PretrainSettings
from cellvim.dataset import Batch, CropSource
from cellvim.dataset.labelled import LabelledDraws
from cellvim.dataset.splits import Division
from cellvim.model import ChannelEncoder, draw_channels, draw_names
from cellvim.model.classifier import ClassifierCard, ClassifierHead, save_classifier
from cellvim.pretrain.holdout import judge_held_out
from cellvim.pretrain.objective import Objective

HOLDOUT_NAME = "holdout.json"


class ClassifierObjective(Objective):
    """Cross-entropy of a linear head on the mean over all tokens; no pixel is hidden, channels are sampled.

    Args:
        settings: The run.
        channels: Stains that get rows of their own.
        division: What is predicted.

    Source:
        Kapse et al. 2025, "Fast Vision Mamba" (arXiv:2502.00594), the task on cells; hierarchical channel
        sampling by Bao et al. 2024 (arXiv:2309.16108).
    """

    title = "Classifier"
    loss_name = "cross-entropy"

    def __init__(self, settings: PretrainSettings, channels: tuple[str, ...], division: Division) -> None:
        super().__init__()
        classes = len(division.classes)
        generator = torch.Generator().manual_seed(settings.seed)
        self.encoder = ChannelEncoder(settings.model, channels, generator=generator)
        self.head = ClassifierHead(settings.model.width, classes, generator=generator)
        self.labels_used = division.label
        self.reference_loss = (math.log(classes), "guessing evenly")
        self.label_smoothing = settings.supervised.label_smoothing
        is_sampled = settings.supervised.channel_sampling and not self.encoder.needs_all_channels
        self.sampling = settings.masking.model_copy(update={"channel_sampling": is_sampled})
        self.seed = settings.seed

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        if batch.labels is None:
            msg = "a batch for the classifier has no labels"
            raise ValueError(msg)
        shown = draw_channels(self.sampling, channels=len(batch.channels), seed=self.seed, step=batch.step)
        names = [batch.channels[channel] for channel in shown]
        if not self.encoder.needs_all_channels:
            names = list(draw_names(self.sampling, names, seed=self.seed, step=batch.step))
        logits = self.classify(batch.images[:, list(shown)], names)
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        hits = logits.detach().argmax(dim=1) == batch.labels
        return {"loss": loss, "accuracy": hits.to(loss.dtype).mean()}

    def classify(self, images: Tensor, channels: list[str] | tuple[str, ...]) -> Tensor:
        """Logits of each image, in single precision or better."""
        logits: Tensor = self.head(self.encoder.features(images, channels, pool="all"))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def write_results(self, source: CropSource, settings: PretrainSettings) -> dict[str, Any]:
        """Write the head, and how well it does on wells that it has not seen."""
        if not isinstance(source.draws, LabelledDraws):
            raise TypeError(source.draws)
        division = source.draws.division
        save_classifier(settings.out, self.head.state_dict(), classifier_card(self, division))
        results = judge_held_out(self, division, settings)
        write_json(settings.out / HOLDOUT_NAME, results)
        return {"holdout": results}


def classifier_card(objective: ClassifierObjective, division: Division) -> ClassifierCard:
    return ClassifierCard(
        label=division.label,
        classes=division.classes,
        width=objective.encoder.width,
        held_out_plates=division.held_out_plates,
        group=division.group,
        held_out_groups=division.held_out_groups,
    )
