"""Names and shapes of the tensors of a published model, and what to say when a file has others."""

import difflib
from collections.abc import Callable, Iterable, Sequence

from cellvim.errors import InputError
from cellvim.model.mixer import CONV_TAPS, EXPANSION, STEP_RANK_DIVISOR
from cellvim.model.published.description import Description, State
from cellvim.model.tensors import differences, shapes_of

Shapes = dict[str, tuple[int, ...]]

ANCHOR = "patch_embed.proj.weight"
"""Every published model has one tensor of this name."""
SHOWN = 3
"""Names per kind of difference that an error shows."""
SEARCHED = 500
"""Names that a misspelt one is compared with, which takes long in a foreign file of many."""


def prefixes(names: Iterable[str]) -> list[str]:
    """What stands before the names of a published model, such as `module.`; one per model among the names."""
    found = sorted({name.removesuffix(ANCHOR) for name in names if name.endswith(ANCHOR)})
    return [prefix for prefix in found if not prefix or prefix.endswith(".")]


def check_names(state: State, description: Description, *, what: str = "the state") -> None:
    """Compare names and shapes, one by one.

    Args:
        state: Tensors by published name.
        description: The model that they shall be.
        what: Where they come from, for the message.

    Raises:
        InputError: A tensor is missing, not expected, or of another shape.
    """
    differing = differences(published_shapes(description), shapes_of(state))
    if differing:
        missing, unexpected, misshapen = differing.missing, differing.unexpected, differing.misshapen
        parts = [
            _some(missing, "missing", lambda name: name + _nearest(name, unexpected)),
            _some(unexpected, "not expected", lambda name: name + _nearest(name, missing)),
            _some(
                tuple(misshapen),
                "of another shape",
                lambda name: "{} {} instead of {}".format(name, *misshapen[name]),
            ),
        ]
        kind = f"{description.kind} model of {description.depth} blocks, width {description.width}"
        message = f"{what} is no {kind}: {'; '.join(part for part in parts if part)}"
        raise InputError(message, hint="check that the weights and the configuration belong together")


def _some(names: Sequence[str], problem: str, describe: Callable[[str], str]) -> str:
    if not names:
        return ""
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{problem}: {', '.join(describe(name) for name in names[:SHOWN])}{rest}"


def _nearest(name: str, others: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(others)[:SEARCHED], n=1, cutoff=0.8)
    return f" (close to {close[0]})" if close else ""


def published_shapes(description: Description) -> Shapes:
    """Name and shape of every tensor."""
    width, patch_px = description.width, description.patch_px
    is_channel, is_masked = description.kind == "channel", description.kind == "masked"
    colours = (1, 1) if is_channel else (description.channels,)
    positions = description.grid[0] * description.grid[1]
    shapes: Shapes = {
        "patch_embed.proj.weight": (width, *colours, patch_px, patch_px),
        "patch_embed.proj.bias": (width,),
        "norm_f.weight": (width,),
        **_block_shapes("layers", description.depth, width, description),
    }
    if is_channel:
        shapes["patch_embed.channel_embed.weight"] = (description.channels, width)
    if description.has_positions:
        shapes["pos_embed"] = (1, positions + description.spare_positions, width)
    if description.has_class_token:
        shapes["cls_token"] = (1, 1, width)
    if description.classes:
        shapes |= {"head.weight": (description.classes, width), "head.bias": (description.classes,)}
    return shapes | (_decoder_shapes(description, positions) if is_masked else {})


def _decoder_shapes(description: Description, positions: int) -> Shapes:
    width = description.decoder_width
    pixels = description.patch_px**2 * description.channels
    return {
        "decoder_embed.weight": (width, description.width),
        "decoder_embed.bias": (width,),
        "mask_token": (1, 1, width),
        "decoder_pos_embed": (1, positions, width),
        **_block_shapes("decoder_blocks", description.decoder_depth, width, description),
        "decoder_norm.weight": (width,),
        "decoder_pred.weight": (pixels, width),
        "decoder_pred.bias": (pixels,),
    }


def _block_shapes(stack: str, depth: int, width: int, description: Description) -> Shapes:
    inner, state = EXPANSION * width, description.state_size
    rank = -(-width // STEP_RANK_DIVISOR)
    mixer: Shapes = {"in_proj.weight": (2 * inner, width), "out_proj.weight": (width, inner)}
    for suffix in ("", "_b"):
        mixer |= {
            f"conv1d{suffix}.weight": (inner, 1, CONV_TAPS),
            f"conv1d{suffix}.bias": (inner,),
            f"x_proj{suffix}.weight": (rank + 2 * state, inner),
            f"dt_proj{suffix}.weight": (inner, rank),
            f"dt_proj{suffix}.bias": (inner,),
            f"A{suffix}_log": (inner, state),
            f"D{suffix}": (inner,),
        }
    if description.has_inner_norm:
        mixer |= {"layernorm.weight": (inner,), "layernorm.bias": (inner,)}
    return {
        f"{stack}.{number}.{name}": shape
        for number in range(depth)
        for name, shape in {
            "norm.weight": (width,),
            **{f"mixer.{name}": shape for name, shape in mixer.items()},
        }.items()
    }
