"""Settings of the model: what a token is, what mixes tokens, how large it all is."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cellvim.config.base import Positive, Settings

Preset = Literal["nano", "tiny", "small", "base", "large", "huge"]
Backbone = Literal["fast_channel_vim", "channel_vim", "channel_vit", "bag_of_channels"]


class ModelSettings(Settings):
    """The channel-aware masked FastVim and its relatives. Symbols as in the paper: `d` model width, `N` state size."""

    backbone: Backbone = "fast_channel_vim"
    """What mixes the tokens: the pooled scan, or a baseline on the same tokens. `channel_vim` scans every token,
    `channel_vit` attends, `bag_of_channels` runs the pooled scan on one channel at a time."""
    width: Positive = 96
    """Model width d."""
    depth: Positive = 6
    """Number of blocks; even blocks pool the columns of a row, odd blocks the rows of a column. `channel_vit` has
    half as many, as an attention block with its perceptron holds as many weights as two others."""
    patch_px: Positive = 16
    """Side of one token, in pixels."""
    tokenization: Literal["per-channel", "joint"] = "per-channel"
    """One token per patch and channel, or one per patch over all channels; the latter needs just the channels that
    it was trained with."""
    state_size: Positive = 16
    """State size N of the scan."""
    scan_order: Literal["channel-first", "spatial-first", "alternating"] = "channel-first"
    """Whether the channel or the position varies fastest along the sequence; `alternating` changes every two
    blocks, beginning channel-first, so that each order meets rows and columns."""
    scan_path: Literal["rowwise", "colwise"] = "rowwise"
    """Whether even blocks pool the columns of a row, or the rows of a column."""
    is_rotated: bool = True
    """Odd blocks pool the other axis; if not, all blocks pool alike."""
    pool: Literal["mean", "max"] = "mean"
    """How the tokens of a row become one before the scan."""
    pool_divisor: Literal["count", "width"] = "count"
    """What the sum over a row is divided by: the tokens present, or, as in the published masked models, the length
    of the row, hidden ones included."""
    dense_pool_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the pooled means of whole images; what a model that learned with `pool_divisor: width` needs."""
    backward_rows: Literal["corrected", "published"] = "corrected"
    """Rows that the backward direction pools masked tokens into: their own, or those of the published models,
    which count rows from the wrong end. Whole images are the same for both."""
    has_inner_norm: bool = True
    """LayerNorm between the scan and the gate."""
    has_class_token: bool = False
    """A learned token in the middle of the sequence that stands for the image; only without pooling."""
    decoder_width: Positive = 96
    """Width of the reconstruction decoder."""
    decoder_depth: Positive = 2
    """Blocks of the reconstruction decoder."""
    is_decoder_pooled: bool = True
    """Whether the decoder's blocks pool and rotate as the encoder's, or scan every token."""
    position_grid: Positive | tuple[Positive, Positive] = 14
    """Side of the stored table of position embeddings, in tokens, or its rows and columns; resized for other
    grids."""

    @model_validator(mode="after")
    def _class_token_needs_a_sequence(self) -> Self:
        if self.has_class_token and self.backbone != "channel_vim":
            msg = f"has_class_token needs backbone channel_vim, not {self.backbone}: rows are pooled, tokens not"
            raise ValueError(msg)
        return self


PRESETS: dict[Preset, dict[str, int]] = {
    "nano": {"width": 96, "depth": 6, "patch_px": 16, "decoder_width": 96},
    "tiny": {"width": 192, "depth": 24, "patch_px": 16, "decoder_width": 192},
    "small": {"width": 384, "depth": 24, "patch_px": 16, "decoder_width": 512},
    "base": {"width": 768, "depth": 24, "patch_px": 16, "decoder_width": 512},
    "large": {"width": 1024, "depth": 48, "patch_px": 16, "decoder_width": 512},
    "huge": {"width": 1280, "depth": 64, "patch_px": 14, "position_grid": 16, "decoder_width": 512},
}
