"""Settings of ingest, of importing weights, and of the demo."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cellvim.config.base import Location, Positive, Settings, cores

SourceKind = Literal[
    "auto",
    "pattern",
    "load-data",
    "ome-zarr",
    "operetta",
    "imagexpress",
    "cellvoyager",
    "ome-tiff",
    "cellomics",
]
IlluminationMode = Literal["none", "on-read", "baked"]
IlluminationMethod = Literal["mean", "basic"]


class IngestSettings(Settings):
    """`cellvim ingest`: from vendor files to one OME-Zarr plate each."""

    sources: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders of images, one plate or several in each; also load_data.csv files and OME-Zarr plates."""
    out: Location
    """Folder that receives PLATE.ome.zarr and PLATE.cellvim; also a URL such as ``s3://bucket/screen``."""
    platemap: Path | None = None
    """CSV, TSV or Parquet that says what is in each well, or which plate map belongs to each barcode."""
    pattern: str | None = None
    """File names with named fields, for example ``{plate}/{well}_{field}_{channel}.tif``."""
    plate: str | None = None
    """Plate name, where the source does not carry one."""
    images: Path | None = None
    """Folder of the images that a load_data.csv names, where it lies elsewhere; images are read from nowhere else."""
    source: SourceKind = "auto"
    """Reader to use; `auto` recognises the folder and says how."""
    channels: str | None = None
    """Stain names: ``DNA,GFP`` in sorted order of the source's keys, or ``1=GFP,2=DNA``."""
    drop_channels: str | None = None
    """Channels to leave out, by the source's keys or stains: ``4`` or ``4,Cy5``; for one that only some wells have."""
    on_missing: Literal["stop", "skip-field", "fill"] = "stop"
    """What to do with a field that lacks a plane or holds a damaged one."""
    z: Literal["max", "mean", "focus"] | Annotated[int, Field(ge=0)] = "max"
    """How several z planes become one: a projection, the sharpest plane, or the number of the plane to keep."""
    timepoint: Annotated[int, Field(ge=0)] | None = None
    """Which time point to keep; required when the source has several."""
    codec: Literal["zstd", "lz4"] = "zstd"
    """Blosc codec of the pixels."""
    illumination: IlluminationMode = "none"
    """Divide out each channel's uneven illumination: when pixels are read, or in the pixels that are stored."""
    illumination_method: IlluminationMethod = "mean"
    """How it is learned: from the smoothed mean image, or by BaSiC, for which `basicpy` must be installed."""
    workers: Positive = Field(default_factory=lambda: min(8, cores()))
    """Fields read and compressed at the same time; one per core, but at most 8, if absent."""
    overwrite: bool = False
    """Replace a plate that was made from other inputs or settings."""
    dry_run: bool = False
    """Report what would be written, and write nothing."""


class ImportSettings(Settings):
    """`cellvim import-checkpoint`: from a published checkpoint to a model folder."""

    file: Path
    """Checkpoint of the authors of a model, as Lightning or `torch.save` wrote it."""
    out: Path
    """Folder that receives model.safetensors, README.md, settings.yaml and run.json."""
    channels: tuple[str, ...] = ()
    """Stain of each row of the model's table, or of each colour, in their order; ``red, green, blue`` for three
    colours if absent."""
    pool: Literal["auto", "mean", "max"] = "auto"
    """How the tokens of a row become one; `auto` reads it from the file, or assumes the mean."""
    scan_order: Literal["channel-first", "spatial-first"] | None = None
    """Whether the channel or the position varies fastest; read from the file, or channel-first."""
    scan_path: Literal["rowwise", "colwise"] | None = None
    """Which axis the first block pools; read from the file, or rowwise."""
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the patches that were hidden, for masked models; read from the file, or 0.75."""
    image_px: tuple[Positive, Positive] | None = None
    """Height and width that the model was trained at; read from the file, or a square."""
    use_ema: bool = True
    """Take the averaged weights, where the file has them."""
    overwrite: bool = False
    """Replace another model."""


class DemoSettings(Settings):
    """`cellvim demo`: synthetic plates with known truth, through all four stages, to a report."""

    out: Path = Path("demo")
    """Folder that receives images, plates, run, embeddings and report."""
    plates: Annotated[int, Field(ge=2, le=4)] = 3
    """Synthetic plates to draw."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides the images, the training and the random rank lists."""
    steps: Annotated[int, Field(ge=0)] = 250
    """Optimiser steps of the pretraining."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    overwrite: bool = False
    """Replace a demo that was made with other settings."""
