"""`cellvim import-checkpoint`: published weights that a user has, as a model folder of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellvim.atomic import write_text
from cellvim.config import ImportSettings
from cellvim.errors import InputError, UsageError
from cellvim.model.channel_embed import UNKNOWN
from cellvim.model.checkpoint import ModelCard, save_encoder
from cellvim.model.importing.folder import claimed
from cellvim.model.importing.hyperparameters import find_words, settle
from cellvim.model.importing.unpickling import read_pickled
from cellvim.model.importing.weights import Checkpoint, as_float32, pick_weights
from cellvim.model.published.description import DEFAULT_MASK_RATIO, Description, State, describe, offered
from cellvim.model.published.names import check_names
from cellvim.model.published.translate import translate_encoder
from cellvim.model.published.words import sides_px
from cellvim.provenance import Run, files_written, sha256_of_file

__all__ = ["ImportSummary", "import_checkpoint"]

LICENCE = "the weights are their authors' work, under the licence that their authors chose"
NORMALIZATION = (
    "not recorded in the checkpoint; cellvim clips at percentiles 0.1 and 99.9 of plate and channel, and"
    " standardises per field and channel"
)
COLOURS = ("red", "green", "blue")
DEFAULT_IMAGE_PX = 224
FLAGS = {
    "collapse_method": "--pool",
    "scan_order": "--scan-order",
    "scanpath_type": "--scan-path",
    "mask_ratio": "--mask-ratio",
    "img_size": "--image-px",
}
"""Flag that decides a word of the configuration."""
ASSUMED = {
    "collapse_method": "mean",
    "scan_order": "Channel-First",
    "scanpath_type": "rowwise",
    "rotate_every_block": True,
    "mask_ratio": DEFAULT_MASK_RATIO,
}
"""What a word is taken to be where neither the file nor a flag says it."""


@dataclass(frozen=True)
class ImportSummary:
    """What was imported, and what of it was known.

    Args:
        out: The model folder.
        model: One line about the model.
        channels: Stains or colours, in the order of the model.
        found: Words read from the file.
        given: Words decided by flags.
        assumed: Words that nothing told.
        prefix: What stood before the names of the tensors.
        left_out: Tensors that an encoder does without.
    """

    out: Path
    model: str
    channels: tuple[str, ...]
    found: dict[str, Any]
    given: dict[str, Any]
    assumed: dict[str, Any]
    prefix: str
    left_out: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        lines = [f"{self.out}  {self.model}", f"  channels: {', '.join(self.channels)}"]
        named = {"found in the file": self.found, "given": self.given}
        lines += [
            f"  {what}: {word} {value}" for what, words in named.items() for word, value in words.items()
        ]
        for word, value in self.assumed.items():
            flag = f"; {FLAGS[word]} says otherwise" if word in FLAGS else ""
            lines.append(f"  assumed: {word} {value}{flag}")
        if self.prefix:
            lines.append(f"  prefix: {self.prefix} stood before the names of the tensors")
        if self.left_out:
            lines.append(f"  left out: {len(self.left_out)} tensors, such as {', '.join(self.left_out[:3])}")
        return "\n".join([*lines, f"  licence: {LICENCE}"])


def import_checkpoint(settings: ImportSettings) -> ImportSummary:
    """Read a published checkpoint, check it, and write it as a model that `embed` takes.

    Nothing that the file says is run, and nothing is written before all of it has been checked.

    Raises:
        NotFoundError: No checkpoint there.
        InputError: The file holds more than weights, or no published model.
        UsageError: The model needs names of channels, or a flag can have no effect on it.
        OutputExistsError: Something else than this model lies in the output folder, or it is a training run.
        LockedError: Another process writes there.
    """
    checkpoint = pick_weights(settings.file, read_pickled(settings.file), use_ema=settings.use_ema)
    given = _flags(settings)
    with _named_in_errors(settings.file):
        found, description = _describe(checkpoint, given)
    check_names(checkpoint.state, description, what=str(settings.file))
    _refuse_idle_flags(given, description)
    channels = _channels(settings, description)
    encoder_state = translate_encoder(as_float32(settings.file, checkpoint.state), description)
    digest = sha256_of_file(settings.file)
    origin = f"{settings.file.name} (sha256 {digest}), {_which_weights(checkpoint)}; {LICENCE}"
    card = _card(checkpoint, description, channels, origin)
    matters = _words_that_matter(description)
    summary = ImportSummary(
        out=settings.out,
        model=_title(description, checkpoint),
        channels=channels,
        found={word: value for word, value in found.items() if word in matters},
        given={word: value for word, value in given.items() if word in matters},
        assumed=_assumed(description, found | given),
        prefix=checkpoint.prefix,
        left_out=(*checkpoint.left_out, *_unused(checkpoint.state)),
    )
    run = Run("import-checkpoint", settings, facts=summary.as_dict())
    run.record_input(settings.file, digest, settings.file)
    with claimed(settings, card):
        save_encoder(settings.out, encoder_state, card)
        write_text(settings.out / "settings.yaml", settings.to_yaml())
        run.outputs = files_written(settings.out / name for name in ("model.safetensors", "README.md"))
        run.write(settings.out / "run.json")
    return summary


@contextmanager
def _named_in_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        message = f"{file}: {error.found}"
        raise InputError(message, hint=error.hint) from error


def _flags(settings: ImportSettings) -> dict[str, Any]:
    flags = {
        "collapse_method": None if settings.pool == "auto" else settings.pool,
        "scan_order": settings.scan_order,
        "scanpath_type": settings.scan_path,
        "mask_ratio": settings.mask_ratio,
        "img_size": settings.image_px,
    }
    return {word: value for word, value in flags.items() if value is not None}


def _describe(checkpoint: Checkpoint, given: dict[str, Any]) -> tuple[dict[str, Any], Description]:
    """Settle those words of the hyper-parameters that matter to the model, less those that flags decide.

    What is left from the training of another kind of model decides nothing, and may contradict itself.
    """
    values = {
        word: values for word, values in find_words(checkpoint.hyperparameters).items() if word not in given
    }
    # Sizes of anything but the model go by the same word.
    sizes = [size for size in values.pop("img_size", []) if _fits_table(size, checkpoint.state)]
    found = settle({"img_size": sizes} if sizes else {}, FLAGS)
    by_tensors = describe(found | given, checkpoint.state)
    matters = _words_that_matter(by_tensors)
    matters |= offered(by_tensors.kind, has_class_token=by_tensors.has_class_token).keys()
    found |= settle({word: values[word] for word in values if word in matters}, FLAGS)
    return found, describe(found | given, checkpoint.state)


def _fits_table(size: Any, state: State) -> bool:
    if "pos_embed" not in state or "patch_embed.proj.weight" not in state:
        return False
    try:
        height, width = sides_px(size)
    except InputError:
        # Another meaning of the word, such as the name of a size.
        return False
    table, weight = state["pos_embed"], state["patch_embed.proj.weight"]
    if table.dim() != 3 or not weight.dim() or not weight.shape[-1]:
        # Refused by its own name, soon after.
        return False
    patches = (height // weight.shape[-1]) * (width // weight.shape[-1])
    return table.shape[1] in {patches, patches + 1}


def _words_that_matter(description: Description) -> set[str]:
    words = {"scanpath_type"}
    words |= {"img_size"} if description.has_positions else set()
    words |= {"scan_order"} if description.kind == "channel" and description.channels > 1 else set()
    words |= set() if description.has_class_token else {"rotate_every_block"}
    words |= set() if description.has_class_token or description.kind == "masked" else {"collapse_method"}
    return words | ({"mask_ratio"} if description.kind == "masked" else set())


def _refuse_idle_flags(given: dict[str, Any], description: Description) -> None:
    """Refuse what the user decides about the model and the model does not have."""
    lacks = {
        "collapse_method": (description.has_class_token, "pools nothing"),
        "mask_ratio": (description.kind != "masked", "hides nothing"),
        "scan_order": (description.kind != "channel", "has one token per patch, whatever the channels"),
        "img_size": (not description.has_positions, "has no table of positions"),
    }
    for word, (is_idle, reason) in lacks.items():
        if is_idle and word in given:
            message = f"this model {reason}, {FLAGS[word]} cannot change that"
            raise UsageError(message, hint=f"drop {FLAGS[word]}")


def _assumed(description: Description, known: dict[str, Any]) -> dict[str, Any]:
    rows, cols = description.grid
    square = f"{rows * description.patch_px} x {cols * description.patch_px}"
    defaults = ASSUMED | {"img_size": square}
    matters = _words_that_matter(description)
    return {word: value for word, value in defaults.items() if word in matters and word not in known}


def _channels(settings: ImportSettings, description: Description) -> tuple[str, ...]:
    names, count = settings.channels, description.channels
    what = "rows in its table of channels" if description.kind == "channel" else "colours"
    if not names and description.kind != "channel" and count == len(COLOURS):
        return COLOURS
    if len(names) != count:
        found = f"the model has {count} {what}, {len(names)} names were given"
        example = ",".join([*("DNA", "ER", "RNA", "AGP", "Mito")][:count])
        raise UsageError(found, hint=f"name them in the order of training, such as --channels {example}")
    distinct = {name.strip().casefold() for name in names}
    if len(distinct) < count or distinct & {"", UNKNOWN}:
        found = f"channels {', '.join(names)} are not distinct names"
        raise UsageError(found, hint=f"give each a name of its own, other than {UNKNOWN}")
    return names


def _card(
    checkpoint: Checkpoint, description: Description, channels: tuple[str, ...], origin: str
) -> ModelCard:
    is_masked = description.kind == "masked"
    side_px = min(description.grid) * description.patch_px
    return ModelCard(
        model=description.settings,
        channels=channels,
        crop_px=side_px if description.has_positions else DEFAULT_IMAGE_PX,
        mask_ratio=description.mask_ratio if is_masked else 0.0,
        steps=checkpoint.steps,
        seed=0,
        is_trained=True,
        objective="mae" if is_masked else "supervised",
        labels_used=None if is_masked else "of its authors",
        normalization=NORMALIZATION,
        origin=origin,
    )


def _which_weights(checkpoint: Checkpoint) -> str:
    return "averaged weights" if checkpoint.is_averaged else "weights as trained"


def _title(description: Description, checkpoint: Checkpoint) -> str:
    kind = f"unpooled {description.kind}" if description.has_class_token else description.kind
    millions = sum(tensor.numel() for tensor in checkpoint.state.values()) / 1e6
    return (
        f"{kind} model of {description.depth} blocks, width {description.width}, patches of"
        f" {description.patch_px} px, {millions:.1f} M parameters ({_which_weights(checkpoint)})"
    )


def _unused(state: State) -> tuple[str, ...]:
    return tuple(name for name in state if name.startswith(("head.", "decoder_", "mask_token")))
