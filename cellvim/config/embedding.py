"""Settings of `cellvim embed`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cellvim.config.base import Location, Positive, Settings, cores

Level = Literal["well", "field", "crop", "object"]


class EmbedSettings(Settings):
    """`cellvim embed`: one row of features per well, field, crop or object."""

    plates: Annotated[tuple[Location, ...], Field(min_length=1)]
    """Plates, or folders of plates."""
    model: Path
    """Run folder of `cellvim pretrain`, or a model.safetensors file."""
    out: Path
    """Parquet table to write."""
    level: Level = "well"
    """What a row stands for; `object` is an object of the label images in `masks`, such as a cell."""
    pool: Literal["channel", "all"] = "channel"
    """Average tokens per channel and concatenate, or over everything."""
    layers: tuple[int, ...] = ()
    """Blocks whose output is used, from 0; several are concatenated; none means the final norm."""
    each_layer: bool = False
    """One table per block, NAME.block02.parquet, instead of one of all; of every block if `layers` names none."""
    tile_px: Positive | None = None
    """Side of the tiles a field is cut into; the training crop if absent."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of a tile's side by which neighbouring tiles overlap at least."""
    min_content: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Leave out tiles of which less than this share is brighter than the plate's background in any channel; a row
    without any tile above it keeps all of them."""
    masks: Path | None = None
    """Folder of label images, one per field: features are those of crops around the objects instead of tiles."""
    object_background: Literal["keep", "zero"] = "keep"
    """Whether the crop around an object shows what lies around it."""
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

    @model_validator(mode="after")
    def _masks_replace_tiles(self) -> Self:
        if self.masks is None:
            needs = {
                "level object": self.level == "object",
                "object_background zero": self.object_background == "zero",
            }
            for what, is_asked in needs.items():
                if is_asked:
                    msg = f"{what} needs label images: say where they are with --masks"
                    raise ValueError(msg)
            return self
        tiles_only = {
            "level crop": self.level == "crop",
            "overlap": self.overlap > 0,
            "min_content": self.min_content > 0,
        }
        for what, is_asked in tiles_only.items():
            if is_asked:
                msg = f"{what} is about tiles, and with masks the crops are those around objects"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _layers_differ(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            msg = f"layers {', '.join(map(str, self.layers))}: a block is named twice"
            raise ValueError(msg)
        return self
