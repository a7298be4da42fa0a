"""The published models in straight lines, from the written specification alone: lists of tokens, loops over rows.

Nothing of the package is used here, neither layouts nor kernels, so that agreement with it means something.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Config = Mapping[str, Any]
Weights = Mapping[str, Tensor]
EPS = 1e-5
PIXEL_EPS = 1e-6


@dataclass(frozen=True)
class Place:
    """Where a token lies: row and column of the grid as the model sees it, and channel."""

    row: int
    col: int
    channel: int = 0


@dataclass(frozen=True)
class Pooling:
    """Bin of each position of a sequence, of each position of the reversed sequence, and how a bin is summed up."""

    ahead: Sequence[int]
    back: Sequence[int]
    bins: int
    divisor: int | None = None
    is_max: bool = False


def run_dense(
    config: Config, w: Weights, image: Tensor, channel_ids: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Tokens in sequence order, features and logits of an image or channel model."""
    samples = [dense_sample(config, w, sample, channel_ids) for sample in image]
    tokens = torch.stack(samples)
    has_class_token = config.get("if_cls_token", False)
    features = tokens[:, (tokens.shape[1] - 1) // 2] if has_class_token else tokens.mean(1)
    logits = features @ w["head.weight"].T + w["head.bias"]
    loss = torch.log_softmax(logits, -1)[:, 0].sum()
    return {"tokens": tokens, "features": features, "logits": logits, "loss": loss}


def dense_sample(config: Config, w: Weights, image: Tensor, channel_ids: Sequence[int] | None) -> Tensor:
    found = embed(config, w, image, channel_ids)
    residual = dict(found)
    order_of = sequence_key(config)
    if config.get("if_cls_token", False):
        return with_class_token(config, w, residual, order_of(0))
    for block in range(config["depth"]):
        is_odd = block % 2 if config.get("rotate_every_block", True) else 0
        key = order_of(is_odd)
        places = sorted(residual, key=key)
        sequence = torch.stack([residual[place] for place in places])
        bins = sorted({bin_key(place, config, is_odd) for place in places})
        ahead = [bins.index(bin_key(place, config, is_odd)) for place in places]
        back = [len(bins) - 1 - number for number in reversed(ahead)]
        pooling = Pooling(ahead, back, len(bins), is_max=config.get("collapse_method", "mean") == "max")
        sequence = apply_block(w, f"layers.{block}", sequence, pooling)
        residual = dict(zip(places, sequence, strict=True))
    places = sorted(residual, key=order_of(0))
    return rms_norm(torch.stack([residual[place] for place in places]), w["norm_f.weight"])


def with_class_token(
    config: Config, w: Weights, residual: Mapping[Place, Tensor], key: Callable[[Place], tuple[int, ...]]
) -> Tensor:
    vectors = [residual[place] for place in sorted(residual, key=key)]
    middle = len(vectors) // 2
    token = w["cls_token"].reshape(-1)
    position = class_position(config, w, middle)
    sequence = torch.stack(
        [*vectors[:middle], token if position is None else token + position, *vectors[middle:]]
    )
    length = len(sequence)
    pooling = Pooling(list(range(length)), list(range(length)), length)
    for block in range(config["depth"]):
        sequence = apply_block(w, f"layers.{block}", sequence, pooling)
    return rms_norm(sequence, w["norm_f.weight"])


def class_position(config: Config, w: Weights, middle: int) -> Tensor | None:
    """A table with an entry to spare holds the class token's: in sequence order, or first in channel models."""
    if not config.get("if_abs_pos_embed", True) or not has_spare_position(config, w):
        return None
    return w["pos_embed"][0, middle if config["model"] == "FastVim" else 0]


def has_spare_position(config: Config, w: Weights) -> bool:
    rows, cols = grid_of(config)
    return w["pos_embed"].shape[1] == rows * cols + 1


def grid_of(config: Config) -> tuple[int, int]:
    size = config["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    return height // config["patch_size"], width // config["patch_size"]


def sequence_key(config: Config) -> Callable[[int], Callable[[Place], tuple[int, ...]]]:
    """What the tokens are sorted by, in even and odd blocks."""
    if config.get("scan_order", "Channel-First") == "Channel-First":
        return lambda is_odd: (
            (lambda p: (p.col, p.row, p.channel)) if is_odd else (lambda p: (p.row, p.col, p.channel))
        )
    return lambda is_odd: (
        (lambda p: (p.channel, p.col, p.row)) if is_odd else (lambda p: (p.channel, p.row, p.col))
    )


def bin_key(place: Place, config: Config, is_odd: int) -> tuple[int, ...]:
    """The key with the pooled axis left out: tokens that share it are one row of one channel."""
    line = place.col if is_odd else place.row
    is_channel_first = config.get("scan_order", "Channel-First") == "Channel-First"
    return (line, place.channel) if is_channel_first else (place.channel, line)


def embed(
    config: Config, w: Weights, image: Tensor, channel_ids: Sequence[int] | None
) -> list[tuple[Place, Tensor]]:
    """One vector per patch (image models) or per patch and channel, positions added; the grid may be transposed."""
    side = config["patch_size"]
    weight, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
    rows, cols = grid_of(config)
    is_transposed = config.get("scanpath_type", "rowwise") == "colwise"
    is_joint = config["model"] != "FastChannelVim"
    ids = list(range(len(image))) if channel_ids is None else [int(i) for i in channel_ids]
    found = []
    for i in range(rows):
        for j in range(cols):
            patch = image[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
            row, col, length = (j, i, rows) if is_transposed else (i, j, cols)
            position = position_of(config, w, row * length + col, rows * cols)
            if is_joint:
                found.append((Place(row, col), (weight * patch).sum((1, 2, 3)) + bias + position))
                continue
            for channel, stain in enumerate(ids):
                vector = (weight[:, 0, 0] * patch[channel]).sum((1, 2)) + bias
                stained = vector + w["patch_embed.channel_embed.weight"][stain]
                found.append((Place(row, col, channel), stained + position))
    return found


def position_of(config: Config, w: Weights, number: int, length: int) -> Tensor | float:
    if not config.get("if_abs_pos_embed", True):
        return 0.0
    if not has_spare_position(config, w):
        return w["pos_embed"][0, number]
    if config["model"] == "FastVim":
        return w["pos_embed"][0, number if number < length // 2 else number + 1]
    return w["pos_embed"][0, number + 1]


def apply_block(w: Weights, prefix: str, sequence: Tensor, pooling: Pooling) -> Tensor:
    mixer = {
        name.removeprefix(f"{prefix}.mixer."): value
        for name, value in w.items()
        if name.startswith(prefix + ".")
    }
    return sequence + mix(mixer, rms_norm(sequence, w[f"{prefix}.norm.weight"]), pooling)


def mix(m: Weights, sequence: Tensor, pooling: Pooling) -> Tensor:
    x, z = (sequence @ m["in_proj.weight"].T).chunk(2, dim=-1)
    ahead = direction(m, x, pooling, pooling.ahead, ("conv1d", "x_proj", "dt_proj", "A_log", "D"))
    names = ("conv1d_b", "x_proj_b", "dt_proj_b", "A_b_log", "D_b")
    back = direction(m, x.flip(0), pooling, pooling.back, names).flip(0)
    y = (ahead + back) / 2
    if "layernorm.weight" in m:
        centred = y - y.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        y = centred / scale * m["layernorm.weight"] + m["layernorm.bias"]
    return (y * functional.silu(z)) @ m["out_proj.weight"].T


def direction(m: Weights, x: Tensor, pooling: Pooling, bin_of: Sequence[int], names: Sequence[str]) -> Tensor:
    conv, x_proj, dt_proj, a_log, skip = names
    taps = m[f"{conv}.weight"][:, 0]
    local = []
    for position in range(len(x)):
        total = m[f"{conv}.bias"]
        for lag in range(min(position, taps.shape[1] - 1) + 1):
            total = total + taps[:, taps.shape[1] - 1 - lag] * x[position - lag]
        local.append(functional.silu(total))
    outputs = scan(m, pool(local, bin_of, pooling), (x_proj, dt_proj, a_log))
    return torch.stack([outputs[b] + m[skip] * own for own, b in zip(local, bin_of, strict=True)])


def pool(local: Sequence[Tensor], bin_of: Sequence[int], pooling: Pooling) -> list[Tensor]:
    pooled = []
    for number in range(pooling.bins):
        members = [vector for vector, b in zip(local, bin_of, strict=True) if b == number]
        if not members:
            pooled.append(torch.zeros_like(local[0]))
        elif pooling.is_max:
            pooled.append(torch.stack(members).amax(0))
        else:
            pooled.append(torch.stack(members).sum(0) / (pooling.divisor or len(members)))
    return pooled


def scan(m: Weights, pooled: Sequence[Tensor], names: Sequence[str]) -> list[Tensor]:
    x_proj, dt_proj, a_log = names
    decay_rate = -m[a_log].exp()
    rank, state = m[f"{dt_proj}.weight"].shape[1], decay_rate.shape[1]
    h = torch.zeros_like(decay_rate)
    outputs = []
    for u in pooled:
        dt, b, c = (m[f"{x_proj}.weight"] @ u).split([rank, state, state])
        delta = functional.softplus(m[f"{dt_proj}.weight"] @ dt + m[f"{dt_proj}.bias"])
        h = (delta[:, None] * decay_rate).exp() * h + (delta * u)[:, None] * b
        outputs.append(h @ c)
    return outputs


def rms_norm(sequence: Tensor, weight: Tensor) -> Tensor:
    return sequence / (sequence.square().mean(-1, keepdim=True) + EPS).sqrt() * weight


def run_masked(config: Config, w: Weights, image: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Loss, prediction, mask and latent of a masked model; everything but the target in the order of the grid seen."""
    parts = [masked_sample(config, w, *pair) for pair in zip(image, noise, strict=True)]
    latent, prediction, mask = (torch.stack(part) for part in zip(*parts, strict=True))
    target = torch.stack([targets(config, sample) for sample in image])
    error = (prediction - target).square().mean(-1)
    loss = (error * mask).sum() / mask.sum()
    return {"loss": loss, "pred": prediction, "mask": mask, "latent": latent}


def masked_sample(config: Config, w: Weights, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, cols = grid_of(config)
    if config.get("scanpath_type", "rowwise") == "colwise":
        rows, cols = cols, rows
    embedded = dict(embed(config, w, image, None))
    kept = sorted(noise.argsort()[: int(len(noise) * (1 - config["mask_ratio"]))].tolist())
    latent = encode_kept(config, w, {i: embedded[Place(i // cols, i % cols)] for i in kept}, (rows, cols))
    shown = dict(zip(kept, latent @ w["decoder_embed.weight"].T + w["decoder_embed.bias"], strict=True))
    hidden = w["mask_token"].reshape(-1)
    sequence = torch.stack([shown.get(i, hidden) for i in range(len(noise))]) + w["decoder_pos_embed"][0]
    each = list(range(len(noise)))
    for block in range(config["decoder_depth"]):
        sequence = apply_block(w, f"decoder_blocks.{block}", sequence, Pooling(each, each, len(each)))
    prediction = (
        rms_norm(sequence, w["decoder_norm.weight"]) @ w["decoder_pred.weight"].T + w["decoder_pred.bias"]
    )
    mask = torch.tensor([float(i not in kept) for i in each], dtype=image.dtype)
    return latent, prediction, mask


def encode_kept(config: Config, w: Weights, tokens: Mapping[int, Tensor], grid: tuple[int, int]) -> Tensor:
    rows, cols = grid
    residual = dict(tokens)
    for block in range(config["depth"]):
        is_odd = block % 2 and config.get("rotate_every_block", True)
        id_here = {i: (i % cols) * rows + i // cols if is_odd else i for i in residual}
        order = sorted(residual, key=lambda i, id_here=id_here: id_here[i])
        length, lines = (rows, cols) if is_odd else (cols, rows)
        # The backward direction meets the tokens reversed, but their rows as they were.
        bin_of = [id_here[i] // length for i in order]
        pooling = Pooling(bin_of, bin_of, lines, divisor=length)
        sequence = apply_block(w, f"layers.{block}", torch.stack([residual[i] for i in order]), pooling)
        residual = dict(zip(order, sequence, strict=True))
    return rms_norm(torch.stack([residual[i] for i in sorted(residual)]), w["norm_f.weight"])


def targets(config: Config, image: Tensor) -> Tensor:
    """Pixels of each patch of the untransposed grid, row by row, colour last."""
    side = config["patch_size"]
    rows, cols = grid_of(config)
    patches = []
    for i in range(rows):
        for j in range(cols):
            patch = image[:, i * side : (i + 1) * side, j * side : (j + 1) * side]
            pixels = patch.permute(1, 2, 0).flatten()
            if config.get("norm_pix_loss", False):
                pixels = (pixels - pixels.mean()) / (pixels.var(unbiased=True) + PIXEL_EPS).sqrt()
            patches.append(pixels)
    return torch.stack(patches)
