"""Published tensors to ours, differentiably: the only place that knows how one becomes the other.

Two directions are two tensors there and one stacked tensor here; a patch convolution is a linear map here; positions
are a (rows, columns) table here, whichever grid the sequence reads.
"""

from jaxtyping import Float, Shaped
from torch import Tensor, cat, stack

from cellvim.model.published.description import Description, State

Translated = dict[str, Shaped[Tensor, "..."]]

BOTH_DIRECTIONS = {
    "conv_bias": "conv1d{}.bias",
    "x_proj": "x_proj{}.weight",
    "dt_weight": "dt_proj{}.weight",
    "dt_bias": "dt_proj{}.bias",
    "A_log": "A{}_log",
    "D": "D{}",
}
SAME = {"in_proj.weight": "in_proj.weight", "out_proj.weight": "out_proj.weight"}
INNER_NORM = {"norm_weight": "layernorm.weight", "norm_bias": "layernorm.bias"}


def translate_encoder(state: State, description: Description) -> Translated:
    """Tensors of a `ChannelEncoder` with the settings of the description."""
    width = description.width
    translated = {
        "projection.linear.weight": state["patch_embed.proj.weight"].flatten(1),
        "projection.linear.bias": state["patch_embed.proj.bias"],
        "norm.weight": state["norm_f.weight"],
        **_blocks(state, "layers", description.depth, description),
    }
    positions = state["pos_embed"][0] if description.has_positions else None
    if description.has_class_token:
        token = state["cls_token"].reshape(width)
        if positions is not None and description.spare_positions:
            spare = _spare_position(description)
            token = token + positions[spare]
            positions = cat([positions[:spare], positions[spare + 1 :]])
        translated["class_token"] = token
    blank = state["norm_f.weight"].new_zeros(description.grid[0] * description.grid[1], width)
    translated["address.position"] = _position_grid(blank if positions is None else positions, description)
    if description.kind == "channel":
        stains = state["patch_embed.channel_embed.weight"]
        # The published table has no row for unknown stains.
        translated["address.stain"] = cat([stains, stains.new_zeros(1, width)])
    return translated


def translate_decoder(state: State, description: Description) -> Translated:
    """Tensors of the decoder of a `MaskedAutoencoder` with the settings of the description."""
    return {
        "embed.weight": state["decoder_embed.weight"],
        "embed.bias": state["decoder_embed.bias"],
        "mask_token": state["mask_token"].reshape(-1),
        "address.position": _position_grid(state["decoder_pos_embed"][0], description),
        "norm.weight": state["decoder_norm.weight"],
        "head.weight": _colour_first(state["decoder_pred.weight"], description),
        "head.bias": _colour_first(state["decoder_pred.bias"].unsqueeze(1), description).squeeze(1),
        **_blocks(state, "decoder_blocks", description.decoder_depth, description),
    }


def _blocks(state: State, stack_name: str, depth: int, description: Description) -> Translated:
    same = SAME | (INNER_NORM if description.has_inner_norm else {})
    translated: Translated = {}
    for number in range(depth):
        theirs, ours = f"{stack_name}.{number}", f"blocks.{number}"
        mixer = f"{theirs}.mixer"
        translated[f"{ours}.norm.weight"] = state[f"{theirs}.norm.weight"]
        taps = [state[f"{mixer}.conv1d{suffix}.weight"].squeeze(1) for suffix in ("", "_b")]
        translated[f"{ours}.mixer.conv_weight"] = stack(taps)
        for name, pattern in BOTH_DIRECTIONS.items():
            pair = [state[f"{mixer}.{pattern.format(suffix)}"] for suffix in ("", "_b")]
            translated[f"{ours}.mixer.{name}"] = stack(pair)
        for name, published in same.items():
            translated[f"{ours}.mixer.{name}"] = state[f"{mixer}.{published}"]
    return translated


def _spare_position(description: Description) -> int:
    """Entry of the class token: image models number the sequence, channel models put it first."""
    rows, cols = description.grid
    return rows * cols // 2 if description.kind == "image" else 0


def _position_grid(
    positions: Float[Tensor, "positions d"], description: Description
) -> Float[Tensor, "rows cols d"]:
    rows, cols = description.grid
    if description.scan_path == "rowwise":
        return positions.reshape(rows, cols, -1)
    # Positions are those of the transposed grid, which the sequence reads.
    return positions.reshape(cols, rows, -1).transpose(0, 1)


def _colour_first(by_pixel: Float[Tensor, "pixels w"], description: Description) -> Float[Tensor, "pixels w"]:
    """Reorder outputs from pixels row by row with the colour last, to colour by colour."""
    side = description.patch_px
    return by_pixel.reshape(side * side, description.channels, -1).transpose(0, 1).flatten(0, 1)
