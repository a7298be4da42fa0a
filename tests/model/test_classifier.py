"""The head of supervised training travels with the names of its classes."""

from pathlib import Path

import pytest
import torch

from cellvim.errors import InputError, NotFoundError
from cellvim.model.classifier import (
    ClassifierCard,
    ClassifierHead,
    load_classifier,
    save_classifier,
)
from cellvim.model.tensors import write_tensors

CARD = ClassifierCard(label="Metadata_Moa", classes=("a", "b", "c"), width=6, held_out_plates=("P2",))


def draw_head() -> ClassifierHead:
    return ClassifierHead(6, 3, generator=torch.Generator().manual_seed(0))


def test_a_head_comes_back_with_its_classes(tmp_path: Path) -> None:
    head = draw_head()
    save_classifier(tmp_path, head.state_dict(), CARD)
    again, card = load_classifier(tmp_path)
    assert card == CARD
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(again(features), head(features), rtol=0, atol=0)


def test_weights_begin_small_and_from_the_generator() -> None:
    weight = draw_head().linear.weight
    torch.testing.assert_close(weight, draw_head().linear.weight, rtol=0, atol=0)
    assert 0 < weight.abs().max() < 0.1


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no classifier head"):
        load_classifier(tmp_path)
    path = tmp_path / "classifier.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_classifier(tmp_path)
    write_tensors(path, {"x": torch.zeros(2)}, header={"is": "other"})
    with pytest.raises(InputError, match="not a classifier head of this version"):
        load_classifier(path)
    wrong = {"linear.weight": torch.zeros(2, 6), "linear.bias": torch.zeros(2)}
    write_tensors(path, wrong, header=CARD.model_dump(mode="json"))
    with pytest.raises(InputError, match="not a classifier head of this version"):
        load_classifier(path)
