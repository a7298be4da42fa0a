"""The files of a trained encoder: weights with a card inside, and a page for people."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError, model_serializer, model_validator
from torch import Tensor

from cellvim.atomic import write_text
from cellvim.config import ModelSettings, Settings
from cellvim.errors import InputError, NotFoundError
from cellvim.model.encoder import ChannelEncoder
from cellvim.model.tensors import differences, read_tensors, shapes_of, write_tensors
from cellvim.provenance import sha256_of_file

WEIGHTS_NAME = "model.safetensors"
PAGE_NAME = "README.md"
IMPORT_HINT = "give a run folder of `cellvim pretrain`, or its model.safetensors"


class ModelCard(Settings):
    """What must be known to use the weights. It travels inside the weights file."""

    model: ModelSettings
    channels: tuple[str, ...]
    """Stains with a row of their own, in the order of the table."""
    crop_px: int
    """Side of the training crop, in pixels."""
    mask_ratio: float
    """Share of patches hidden in training."""
    steps: int
    """Optimiser steps taken."""
    seed: int
    is_trained: bool
    """False for the untrained encoder, a baseline."""
    plates: tuple[str, ...] = ()
    """Names of the plates trained on."""
    objective: str = "mae"
    """What was learned: `mae`, `supervised` or `align`."""
    labels_used: str | None = None
    """Column of the plate map that took part in training; None for an encoder that saw no label."""
    normalization: str = (
        "clip at percentiles 0.1 and 99.9 of plate and channel, standardise per field and channel"
    )
    """What was done to the pixels, and must be done again."""
    origin: str | None = None
    """File that the weights were imported from, its SHA-256 and licence; None for weights trained here."""
    is_unknown_trained: bool = True
    """Whether the row that all other stains share was trained; unwritten where it is what older cards mean."""
    format_version: int = 1

    @model_validator(mode="before")
    @classmethod
    def _some_have_learned_no_unknown_row(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        # Published models have no such row, and untrained ones have learned none; older cards do not say so.
        if content.get("origin") or content.get("is_trained") is False:
            return {**content, "is_unknown_trained": False}
        # Older classifiers were shown every stain by its name.
        return {"is_unknown_trained": content.get("objective") != "supervised", **content}

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        content = serialize(self)
        if self.is_unknown_trained and self.objective != "supervised":
            del content["is_unknown_trained"]
        return content


def save_encoder(folder: Path, encoder_state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write `model.safetensors` and its page into `folder`; same weights and card, same bytes.

    Args:
        folder: Run folder, made if needed.
        encoder_state: State of a `ChannelEncoder`.
        card: Facts about it.
    """
    write_tensors(folder / WEIGHTS_NAME, encoder_state, header=card.model_dump(mode="json"))
    write_text(folder / PAGE_NAME, _page(card, sum(tensor.numel() for tensor in encoder_state.values())))


def load_encoder(path: Path, device: torch.device | str = "cpu") -> tuple[ChannelEncoder, ModelCard]:
    """Read an encoder, ready to use (evaluation mode).

    Args:
        path: Run folder or weights file.
        device: Where the weights go.

    Raises:
        NotFoundError: No weights file there.
        InputError: The file is damaged, or not an encoder of cellvim.
    """
    file = weights_file(path)
    if not file.is_file():
        raise NotFoundError(file, expected="model weights", hint=IMPORT_HINT)
    card, state = _read(file)
    encoder = ChannelEncoder(card.model, card.channels, generator=torch.Generator().manual_seed(card.seed))
    _check_keys(file, encoder.state_dict(), state)
    encoder.load_state_dict(state, strict=True)
    return encoder.to(device).eval(), card


def weights_file(path: Path) -> Path:
    """The weights file of a run folder, or the file itself."""
    return path / WEIGHTS_NAME if path.is_dir() else path


def weights_sha256(path: Path) -> str:
    """SHA-256 of the weights file of a run folder, or of the file itself."""
    return sha256_of_file(weights_file(path))


def _read(file: Path) -> tuple[ModelCard, dict[str, Tensor]]:
    text, state = read_tensors(file, hint=IMPORT_HINT)
    if text is None:
        found = f"{file} holds weights, but no cellvim model card"
        raise InputError(found, hint=IMPORT_HINT)
    try:
        return ModelCard.model_validate_json(text), state
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        found = f"{file} holds a model card that this version cannot read: {where}: {first['msg']}"
        raise InputError(found, hint="use the cellvim version that wrote it") from error


def _check_keys(file: Path, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    differing = differences(shapes_of(expected), shapes_of(state))
    if differing:
        found = f"{file} does not fit its own model card: {differing}"
        raise InputError(found, hint="the file was changed after it was written; make it again")


def _page(card: ModelCard, parameters: int) -> str:
    model = card.model
    divisor = (
        "the number of tokens present"
        if model.pool_divisor == "count"
        else f"the length of the row (times {model.dense_pool_scale:g} in whole images)"
    )
    stains = ", ".join(card.channels)
    plates = ", ".join(card.plates) or "not recorded"
    labels = f"labels {card.labels_used} took part" if card.labels_used else "no labels took part"
    return f"""# cellvim encoder

FastVim ({model.backbone}), {_history(card)}.

| | |
|---|---|
| parameters | {parameters:,} |
| width, blocks, patch | {model.width}, {model.depth}, {model.patch_px} px |
| scan | {model.scan_order}, rows pooled by {model.pool}, divided by {divisor} |
| stains | {stains}; {_other_stains(card)} |
| training crop | {card.crop_px} px, {card.mask_ratio:.0%} of the patches hidden |
| plates | {plates} |
| learned | {card.objective}, {labels} |
| pixels | {card.normalization} |

Use: `cellvim embed PLATE --model {WEIGHTS_NAME} --out embeddings.parquet`.
Stains match by name, ignoring case. Any image of at least one patch works; positions are interpolated.
"""


def _other_stains(card: ModelCard) -> str:
    if card.model.tokenization == "joint":
        return "all of them together"
    if card.is_unknown_trained:
        return "any other uses the `unknown` row, which was trained without names"
    return "no other, as the `unknown` row was not trained"


def _history(card: ModelCard) -> str:
    if card.origin:
        return f"imported from {card.origin}"
    if card.is_trained:
        return f"trained for {card.steps} steps, seed {card.seed}"
    return f"untrained (random weights, a baseline), seed {card.seed}"
