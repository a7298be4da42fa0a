"""Files of an encoder: whole, checked, and the same bytes each time."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.errors import InputError, NotFoundError
from cellvim.model import (
    ChannelEncoder,
    MaskedAutoencoder,
    ModelCard,
    load_encoder,
    save_encoder,
    weights_sha256,
)

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")


@pytest.fixture
def card(settings: ModelSettings) -> ModelCard:
    return ModelCard(
        model=settings, channels=STAINS, crop_px=32, mask_ratio=0.75, steps=12, seed=3, is_trained=True
    )


@pytest.fixture
def trained(settings: ModelSettings) -> ChannelEncoder:
    return MaskedAutoencoder(settings, STAINS, seed=3).encoder


@pytest.fixture
def run(tmp_path: Path, trained: ChannelEncoder, card: ModelCard) -> Path:
    save_encoder(tmp_path / "run", trained.state_dict(), card)
    return tmp_path / "run"


def rewrite(run: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> Path:
    save_file(tensors, run / "model.safetensors", metadata)
    return run


def read(run: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(run / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("part", ["", "model.safetensors"])
def test_what_is_saved_is_loaded(
    run: Path, part: str, trained: ChannelEncoder, card: ModelCard, image: Tensor
) -> None:
    encoder, found = load_encoder(run / part)
    assert found == card
    assert not encoder.training
    assert torch.equal(encoder.features(image.float(), STAINS), trained.features(image.float(), STAINS))


def test_same_weights_same_bytes(run: Path, trained: ChannelEncoder, card: ModelCard) -> None:
    before, page = weights_sha256(run), (run / "README.md").read_bytes()
    for _ in range(5):
        save_encoder(run, dict(reversed(trained.state_dict().items())), card)
        assert weights_sha256(run) == before
        assert weights_sha256(run / "model.safetensors") == before
        assert (run / "README.md").read_bytes() == page


def test_the_file_has_one_metadata_key(run: Path) -> None:
    _, metadata = read(run)
    assert list(metadata) == ["cellvim"]
    assert json.loads(metadata["cellvim"])["channels"] == list(STAINS)


def test_the_page_says_what_a_reader_needs(run: Path) -> None:
    page = (run / "README.md").read_text()
    assert "trained for 12 steps" in page
    assert "DNA, ER, RNA, AGP, Mito" in page
    assert "75%" in page


def test_a_row_that_was_not_trained_is_said_to_be(
    run: Path, trained: ChannelEncoder, card: ModelCard
) -> None:
    assert "any other uses the `unknown` row" in (run / "README.md").read_text()
    # Files of the usual case hold what they always did.
    assert "is_unknown_trained" not in read(run)[1]["cellvim"]
    for changes in ({"is_unknown_trained": False}, {"is_trained": False}, {"origin": "a file"}):
        untrained = ModelCard.checked({**card.model_dump(), **changes})
        save_encoder(run, trained.state_dict(), untrained)
        found = load_encoder(run)[1]
        assert found == untrained
        assert not found.is_unknown_trained
        assert "no other, as the `unknown` row was not trained" in (run / "README.md").read_text()


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_classifier_says_whether_it_learned_the_unknown_row(
    run: Path, trained: ChannelEncoder, card: ModelCard, is_trained: bool
) -> None:
    changes = {"objective": "supervised", "is_unknown_trained": is_trained}
    save_encoder(run, trained.state_dict(), ModelCard.checked({**card.model_dump(), **changes}))
    assert load_encoder(run)[1].is_unknown_trained is is_trained


def test_older_cards_are_read_as_what_they_are(run: Path, card: ModelCard) -> None:
    tensors, metadata = read(run)
    for changes, is_trained in (
        ({}, True),
        ({"origin": "a file"}, False),
        ({"is_trained": False}, False),
        ({"objective": "supervised"}, False),
    ):
        old = json.loads(metadata["cellvim"]) | changes
        assert "is_unknown_trained" not in old
        _, found = load_encoder(rewrite(run, tensors, {"cellvim": json.dumps(old)}))
        assert found.is_unknown_trained is is_trained
        assert found.model_copy(update={**changes, "is_unknown_trained": True}) == card.model_copy(
            update=changes
        )


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no model weights"):
        load_encoder(tmp_path)


def test_foreign_bytes(run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"\x80\x04not a safetensors file")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_encoder(run)


def test_a_truncated_file(run: Path) -> None:
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_encoder(run)


def test_weights_of_somebody_else(run: Path) -> None:
    with pytest.raises(InputError, match="no cellvim model card"):
        load_encoder(rewrite(run, {"layer.weight": torch.zeros(2)}, None))


@pytest.mark.parametrize("text", ["not json", "[]", '{"model": {}}', '{"surprise": 1}'])
def test_a_damaged_card(run: Path, text: str) -> None:
    tensors, _ = read(run)
    with pytest.raises(InputError, match="card that this version cannot read"):
        load_encoder(rewrite(run, tensors, {"cellvim": text}))


def test_missing_extra_and_misshapen_tensors_are_named(run: Path) -> None:
    tensors, metadata = read(run)
    missing = {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}
    with pytest.raises(InputError, match=r"norm\.weight is missing"):
        load_encoder(rewrite(run, missing, metadata))
    with pytest.raises(InputError, match="intruder is not expected"):
        load_encoder(rewrite(run, {**tensors, "intruder": torch.zeros(1)}, metadata))
    with pytest.raises(InputError, match=r"norm\.weight is \(3,\) instead of \(16,\)"):
        load_encoder(rewrite(run, {**tensors, "norm.weight": torch.zeros(3)}, metadata))
