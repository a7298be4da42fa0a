"""The linear head of supervised training, and the file that holds it with the names of its classes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor, nn

from cellvim.config import Settings
from cellvim.errors import InputError, NotFoundError
from cellvim.model.initialize import linear, truncated_normal_
from cellvim.model.tensors import differences, read_tensors, shapes_of, write_tensors

CLASSIFIER_NAME = "classifier.safetensors"
HINT = "give a run folder of `cellvim pretrain` with objective: supervised"


class ClassifierHead(nn.Module):
    """One linear layer from the mean over all tokens to the classes.

    Args:
        width: Length of the features.
        classes: Number of classes.
        generator: Source of the initial weights.

    Source:
        Kapse et al. 2025, "Fast Vision Mamba" (arXiv:2502.00594).
    """

    def __init__(self, width: int, classes: int, *, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear(width, classes, has_bias=True)
        truncated_normal_(self.linear.weight, generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        logits: Tensor = self.linear(features)
        return logits


class ClassifierCard(Settings):
    """What must be known to use a head: it reads `encoder.features(..., pool="all")` of the same run."""

    label: str
    """Column of the plate map that it predicts."""
    classes: tuple[str, ...]
    """Values of that column, in the order of the logits."""
    width: int
    """Length of the features."""
    held_out_plates: tuple[str, ...] = ()
    """Plates that it has not seen."""
    group: str | None = None
    """Column of which some values were held out whole; None if none were."""
    held_out_groups: tuple[str, ...] = ()
    """Those values."""
    format_version: int = 1


def save_classifier(folder: Path, head_state: Mapping[str, Tensor], card: ClassifierCard) -> None:
    """Write `classifier.safetensors` into a run folder; same weights and card, same bytes."""
    write_tensors(folder / CLASSIFIER_NAME, head_state, header=card.model_dump(mode="json"))


def load_classifier(path: Path) -> tuple[ClassifierHead, ClassifierCard]:
    """Read the head of a run.

    Raises:
        NotFoundError: No such file.
        InputError: The file is damaged, or not a head of cellvim.
    """
    file = path / CLASSIFIER_NAME if path.is_dir() else path
    if not file.is_file():
        raise NotFoundError(file, expected="classifier head", hint=HINT)
    header, state = read_tensors(file, hint=HINT)
    try:
        card = ClassifierCard.model_validate_json(header or "null")
        head = ClassifierHead(card.width, len(card.classes), generator=torch.Generator())
    except (ValidationError, RuntimeError) as error:
        found = f"{file} is not a classifier head of this version: {str(error).splitlines()[0]}"
        raise InputError(found, hint=HINT) from error
    differing = differences(shapes_of(head.state_dict()), shapes_of(state))
    if differing:
        found = f"{file} is not a classifier head of this version: {differing}"
        raise InputError(found, hint=HINT)
    head.load_state_dict(state, strict=True)
    return head.eval(), card
