"""Settings of `cellvim embed`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cellvim.config.base import Location, Positive, Settings, cores


class EmbedSettings(Settings):
    """`cellvim embed`: one row of features per well, field or crop."""

    plates: Annotated[tuple[Location, ...], Field(min_length=1)]
    """Plates, or folders of plates."""
    model: Path
    """Run folder of `cellvim pretrain`, or a model.safetensors file."""
    out: Path
    """Parquet table to write."""
    level: Literal["well", "field", "crop"] = "well"
    pool: Literal["channel", "all"] = "channel"
    """Average tokens per channel and concatenate, or over everything."""
    layers: tuple[int, ...] = ()
    """Blocks whose output is used, from 0; several are concatenated; none means the final norm."""
    tile_px: Positive | None = None
    """Side of the tiles a field is cut into; the training crop if absent."""
    has_intensity: bool = False
    """Append the mean and standard deviation that normalisation removed, two numbers per channel."""
    batch_size: Positive = 16
    """Tiles per forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: Positive | None = None
    """Processes, each with plates of its own; one per GPU if absent, else one."""
    readers: Positive = Field(default_factory=lambda: min(8, max(2, cores())))
    """Fields that each process reads at the same time, ahead of the encoder."""
    anndata: bool = False
    """Also write NAME.h5ad beside the table; needs the extra `anndata`."""
    overwrite: bool = False
