"""What a published model is, from the words of its configuration and the shapes of its tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Literal

from jaxtyping import Shaped
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.errors import InputError
from cellvim.model.published.words import HINT, MOST_DIGITS, choose, flag, ratio, shown, sides_px, whole

Kind = Literal["image", "channel", "masked"]
State = Mapping[str, Shaped[Tensor, "..."]]

KINDS: dict[str, Kind] = {"fastvim": "image", "fastchannelvim": "channel", "fastmaskvimmae": "masked"}
ORDERS: dict[str, Literal["channel-first", "spatial-first"]] = {
    "channel-first": "channel-first",
    "spatial-first": "spatial-first",
}
PATHS: dict[str, Literal["rowwise", "colwise"]] = {"rowwise": "rowwise", "colwise": "colwise"}
POOLS: dict[str, Literal["mean", "max"]] = {"mean": "mean", "max": "max"}
NAMES: dict[str, Mapping[str, str]] = {
    "scan_order": ORDERS,
    "scanpath_type": PATHS,
    "collapse_method": POOLS,
}
"""Words that are one of several names."""

OFFERED: dict[str, tuple[object, ...]] = {
    "final_pool_type": ("mean",),
    "rms_norm": (True,),
    "if_rope": (False,),
    "if_rope_residual": (False,),
    "if_bidirectional": (False,),
    "use_double_cls_token": (False,),
    "use_middle_cls_token": (True,),
    "flip_img_sequences_ratio": (-1, -1.0, 0, 0.0),
}
"""Words that would change the equations, and the values with which they do not."""

DEFAULT_MASK_RATIO = 0.75
FOREIGN_HINT = "give the weights of a FastVim, FastChannelVim or FastMaskVim model"
DIMENSIONS_HINT = "image models have 4 in patch_embed.proj.weight, channel models 5"


@dataclass(frozen=True)
class Description:
    """All that decides the equations of a published model.

    Args:
        kind: One token per patch, one per patch and channel, or the masked autoencoder.
        channels: Colours of the image, or rows of the channel table.
        grid: Rows and columns of the stored positions, before the transpose of `colwise`.
        spare_positions: 1 where the table of positions has an entry for the class token, else 0.
        classes: Outputs of the head; 0 without one.
        mask_ratio: Share of hidden patches; 0 for models that hide none.
        decoder_width: 0 without a decoder.
    """

    kind: Kind
    width: int
    depth: int
    patch_px: int
    channels: int
    state_size: int
    classes: int
    grid: tuple[int, int]
    spare_positions: int
    scan_order: Literal["channel-first", "spatial-first"]
    scan_path: Literal["rowwise", "colwise"]
    pool: Literal["mean", "max"]
    is_rotated: bool
    has_positions: bool
    has_class_token: bool
    has_inner_norm: bool
    mask_ratio: float
    has_pixel_norm: bool
    decoder_width: int
    decoder_depth: int

    @property
    def channel_names(self) -> list[str]:
        """Names that sort in the order of the published table, which has none."""
        return [f"channel {number:03d}" for number in range(self.channels)]

    @property
    def settings(self) -> ModelSettings:
        """The same model in our words."""
        is_masked = self.kind == "masked"
        return ModelSettings(
            backbone="channel_vim" if self.has_class_token else "fast_channel_vim",
            width=self.width,
            depth=self.depth,
            patch_px=self.patch_px,
            tokenization="per-channel" if self.kind == "channel" else "joint",
            state_size=self.state_size,
            scan_order=self.scan_order,
            scan_path=self.scan_path,
            is_rotated=self.is_rotated and not self.has_class_token,
            pool=self.pool,
            pool_divisor="width" if is_masked else "count",
            dense_pool_scale=1 - self.mask_ratio if is_masked else 1.0,
            backward_rows="published" if is_masked else "corrected",
            has_inner_norm=self.has_inner_norm,
            has_class_token=self.has_class_token,
            decoder_width=self.decoder_width or self.width,
            decoder_depth=self.decoder_depth or 1,
            is_decoder_pooled=False,
            position_grid=self.grid,
        )


def describe(config: Mapping[str, Any], state: State) -> Description:
    """Read a configuration, completed by the shapes of the tensors where it says nothing.

    Args:
        config: Words of the published models; None counts as absent.
        state: Tensors by published name.

    Raises:
        InputError: A word asks for other equations than ours, or the tensors are not those of such a model.
    """
    words = {word: value for word, value in config.items() if value is not None}
    kind = _kind(words, state)
    has_class_token = flag(words, "if_cls_token", default="cls_token" in state)
    _refuse_other_equations(words, kind, has_class_token=has_class_token)
    is_channel, is_masked = kind == "channel", kind == "masked"
    weight = _tensor(
        state, "patch_embed.proj.weight", dimensions=5 if is_channel else 4, hint=DIMENSIONS_HINT
    )
    patch_px = weight.shape[-1]
    has_positions = flag(words, "if_abs_pos_embed", default="pos_embed" in state)
    table = _tensor(state, "pos_embed", dimensions=3).shape[1] if has_positions else 0
    grid = _grid(words, table, patch_px) if has_positions else (1, 1)
    found = Description(
        kind=kind,
        width=weight.shape[0],
        depth=_count_blocks(state, "layers."),
        patch_px=patch_px,
        channels=_rows(state, "patch_embed.channel_embed.weight") if is_channel else weight.shape[1],
        state_size=_tensor(state, "layers.0.mixer.A_log", dimensions=2).shape[1],
        classes=_rows(state, "head.weight") if "head.weight" in state else 0,
        grid=grid,
        spare_positions=int(has_positions and has_class_token and table == grid[0] * grid[1] + 1),
        scan_order=choose(words, "scan_order", ORDERS, "channel-first"),
        scan_path=choose(words, "scanpath_type", PATHS, "rowwise"),
        pool="mean" if has_class_token else choose(words, "collapse_method", POOLS, "mean"),
        is_rotated=flag(words, "rotate_every_block", default=True),
        has_positions=has_positions,
        has_class_token=has_class_token,
        has_inner_norm=flag(words, "use_norm_after_ssm", default="layers.0.mixer.layernorm.weight" in state),
        # Words of the objective are left in the configuration of models that were trained further with another.
        mask_ratio=ratio(words, "mask_ratio", DEFAULT_MASK_RATIO) if is_masked else 0.0,
        has_pixel_norm=is_masked and flag(words, "norm_pix_loss", default=False),
        decoder_width=_tensor(state, "mask_token", dimensions=3).shape[2] if is_masked else 0,
        decoder_depth=_count_blocks(state, "decoder_blocks.") if is_masked else 0,
    )
    _check_sizes(words, found)
    return found


def meaning(word: str, value: object) -> object:
    """Read one word, so that two ways to write the same are equal.

    Raises:
        InputError: It has no meaning.
    """
    words = {word: value}
    if word in NAMES:
        return choose(words, word, NAMES[word], "")
    if word == "mask_ratio":
        return ratio(words, word, DEFAULT_MASK_RATIO)
    if word == "img_size":
        return sides_px(value)
    values = OFFERED.get(word, (True,))
    if isinstance(values[0], bool):
        return flag(words, word, default=True)
    read = value.lower() if isinstance(value, str) else value
    return values[0] if read in values else read


def offered(kind: Kind, *, has_class_token: bool) -> dict[str, tuple[object, ...]]:
    """Words that would change the equations of such a model, and the meanings with which they do not."""
    words = dict(OFFERED)
    if has_class_token:
        # The class token is the feature, whatever would have been done with the others.
        del words["final_pool_type"]
    if kind == "masked":
        words |= {"collapse_method": ("mean",), "if_cls_token": (False,)}
    return words


def _kind(words: Mapping[str, Any], state: State) -> Kind:
    name = words.get("model")
    if name is not None:
        return choose(words, "model", KINDS, "image")
    if any(name.startswith("decoder_") for name in state) or "mask_token" in state:
        return "masked"
    return "channel" if "patch_embed.channel_embed.weight" in state else "image"


def _refuse_other_equations(words: Mapping[str, Any], kind: Kind, *, has_class_token: bool) -> None:
    for word, values in offered(kind, has_class_token=has_class_token).items():
        if word in words and meaning(word, words[word]) not in values:
            allowed = " or ".join(repr(value) for value in values[:2])
            found = (
                f"{word}: {shown(words[word])} is a model that cellvim does not have, {allowed} is expected"
            )
            raise InputError(found, hint=HINT)


def _tensor(state: State, name: str, *, dimensions: int, hint: str = FOREIGN_HINT) -> Shaped[Tensor, "..."]:
    if name not in state:
        found = f"{name} is not among the {len(state)} tensors: no published FastVim model"
        raise InputError(found, hint=FOREIGN_HINT)
    tensor = state[name]
    if tensor.dim() != dimensions:
        found = f"{name} has shape {tuple(tensor.shape)}, {dimensions} dimensions are expected"
        raise InputError(found, hint=hint)
    if not tensor.numel():
        found = f"{name} has shape {tuple(tensor.shape)}, which holds no values"
        raise InputError(found, hint=FOREIGN_HINT)
    return tensor


def _rows(state: State, name: str) -> int:
    return _tensor(state, name, dimensions=2).shape[0]


def _count_blocks(state: State, prefix: str) -> int:
    """One more than the highest number; all that is computed for each block must stay in proportion to the file."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    read = {number: whole(number) for number in numbers if number.isdecimal()}
    for number, value in read.items():
        if value is None or value >= len(state):
            found = (
                f"{prefix}{number[:MOST_DIGITS]} is the number of a block, but there are {len(state)} tensors"
            )
            raise InputError(found, hint=FOREIGN_HINT)
    return 1 + max((value for value in read.values() if value is not None), default=-1)


def _grid(words: Mapping[str, Any], entries: int, patch_px: int) -> tuple[int, int]:
    """Rows and columns of a table of positions, by the image size; a square if none is given."""
    if "img_size" in words:
        height, width = sides_px(words["img_size"])
        return height // patch_px, width // patch_px
    side = isqrt(entries)
    # One entry may be the class token's.
    if entries not in {side**2, side**2 + 1}:
        found = f"pos_embed has {entries} positions, which are no square grid"
        raise InputError(found, hint="give the image size, (height, width), as img_size")
    return side, side


def _check_sizes(words: Mapping[str, Any], found: Description) -> None:
    sizes = {
        "embed_dim": found.width,
        "depth": found.depth,
        "patch_size": found.patch_px,
        "stride": found.patch_px,
        "channels": found.channels,
        "num_classes": found.classes,
    }
    if found.kind == "masked":
        # Elsewhere they are left from the training of the masked model.
        sizes |= {"decoder_embed_dim": found.decoder_width, "decoder_depth": found.decoder_depth}
    if not found.classes:
        # Features alone: the head was dropped.
        del sizes["num_classes"]
    for word, size in sizes.items():
        stated = words.get(word, size)
        sides = stated if isinstance(stated, list | tuple) and len(stated) == 2 else (stated,)
        if {whole(side) for side in sides} != {size}:
            message = f"{word} is {shown(stated)} in the configuration, but {size} in the tensors"
            raise InputError(message, hint=HINT)
