"""Settings, checked once at the edge. Code past this module receives valid values and never re-checks them.

One class per stage. Flags of the command line and, for pretraining, keys of a YAML file under `configs/` set the
attributes documented here.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellvim.errors import InputError, NotFoundError, UsageError

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]

Preset = Literal["nano", "tiny", "small", "base"]
Normalization = Literal["sphere", "mad", "standardize", "none"]
TaskName = Literal["activity", "distinctiveness", "replicate_retrieval", "probe"]


class Settings(BaseModel):
    """Immutable, and strict about spelling: an unknown key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def from_yaml(cls, path: Path, **overrides: Any) -> Self:
        """Read a YAML file; `overrides` win over the file.

        Raises:
            NotFoundError: No such file.
            InputError: The file is not YAML, or a key or value is wrong.
        """
        if not path.is_file():
            raise NotFoundError(path, expected="settings file", hint="see configs/ for examples")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            found = f"{path} is not YAML: {error}"
            raise InputError(found, hint="see configs/ for examples") from error
        if not isinstance(content, dict):
            found = f"{path} holds no keys"
            raise InputError(found, hint="see configs/ for examples")
        return cls.checked(merge(content, overrides), origin=path)

    @classmethod
    def checked(cls, content: dict[str, Any], *, origin: Path | None = None) -> Self:
        """Validate, and turn pydantic's report into one line a user can act on.

        Args:
            content: Keys and values.
            origin: File they come from; None for the command line.

        Raises:
            InputError: A key or value of the file is wrong.
            UsageError: A flag of the command line is.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "settings"
            kind = UsageError if origin is None else InputError
            found = f"{origin or 'settings'}: {where}: {first['msg']}"
            raise kind(found, hint="`--help` lists the settings") from error

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def sha256(self) -> str:
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()


def merge(content: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Lay `overrides` over `content`, key by key in nested sections; None means "not given"."""
    merged = dict(content)
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], value)
        elif value is not None:
            merged[key] = value
    return merged


class IngestSettings(Settings):
    """`cellvim ingest`: from vendor files to one OME-Zarr plate each."""

    sources: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Folders of images, one plate or several in each."""
    out: Path
    """Folder that receives PLATE.ome.zarr and PLATE.cellvim."""
    platemap: Path | None = None
    """CSV, TSV or Parquet that says what is in each well."""
    pattern: str | None = None
    """File names with named fields, for example ``{plate}/{well}_{field}_{channel}.tif``."""
    plate: str | None = None
    """Plate name, where the source does not carry one."""
    source: Literal["auto", "pattern", "imagexpress", "operetta"] = "auto"
    """Reader to use; `auto` recognises the folder and says how."""
    channels: str | None = None
    """Stain names: ``DNA,GFP`` in sorted order of the source's keys, or ``1=GFP,2=DNA``."""
    on_missing: Literal["stop", "skip-field", "fill"] = "stop"
    """What to do with a field that lacks a plane or holds a damaged one."""
    z: Literal["max", "mean"] | Annotated[int, Field(ge=0)] = "max"
    """How several z planes become one: a projection, or the number of the plane to keep."""
    timepoint: Annotated[int, Field(ge=0)] | None = None
    """Which time point to keep; required when the source has several."""
    codec: Literal["zstd", "lz4"] = "zstd"
    """Blosc codec of the pixels."""
    workers: Positive = 2
    """Fields read and compressed at the same time."""
    overwrite: bool = False
    """Replace a plate that was made from other inputs or settings."""
    dry_run: bool = False
    """Report what would be written, and write nothing."""


class ModelSettings(Settings):
    """The channel-aware masked FastVim. Symbols as in the paper: `d` model width, `N` state size."""

    width: Positive = 96
    """Model width d."""
    depth: Positive = 6
    """Number of blocks; even blocks pool the columns of a row, odd blocks the rows of a column."""
    patch_px: Positive = 16
    """Side of one token, in pixels."""
    state_size: Positive = 16
    """State size N of the scan."""
    scan_order: Literal["channel-first", "spatial-first", "alternating"] = "channel-first"
    """Whether the channel or the position varies fastest along the sequence; `alternating` changes every two
    blocks, beginning channel-first, so that each order meets rows and columns."""
    pool: Literal["mean", "max"] = "mean"
    """How the tokens of a row become one before the scan."""
    decoder_width: Positive = 96
    """Width of the reconstruction decoder."""
    decoder_depth: Positive = 2
    """Blocks of the reconstruction decoder."""
    position_grid: Positive = 14
    """Side of the stored table of position embeddings, in tokens; resized for other grids."""


PRESETS: dict[Preset, dict[str, int]] = {
    "nano": {"width": 96, "depth": 6, "patch_px": 16, "decoder_width": 96},
    "tiny": {"width": 192, "depth": 24, "patch_px": 16, "decoder_width": 192},
    "small": {"width": 384, "depth": 24, "patch_px": 16, "decoder_width": 512},
    "base": {"width": 768, "depth": 24, "patch_px": 16, "decoder_width": 512},
}


class MaskingSettings(Settings):
    """What the encoder does not see, and how its guess is judged."""

    mask_ratio: Share = 0.75
    """Share of patches hidden, drawn independently in each channel."""
    channel_steps: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of steps that hide whole channels instead, so that one stain is predicted from the others."""
    fourier_weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the L1 distance between the Fourier magnitudes of hidden patches and their reconstruction."""
    name_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Chance that a channel goes by `unknown` in a step, which trains that row for stains never seen."""
    channel_sampling: bool = False
    """Show a random number of channels in each step, as if the image had no others (hierarchical channel
    sampling). Off: channel steps already train the encoder on every number of channels, and a channel that is
    hidden there is still a target to learn from, while one that is not sampled teaches nothing."""


class CropSettings(Settings):
    """How crops are cut and changed for training."""

    crop_px: Positive = 224
    """Side of the square training crop, in pixels."""
    gain_jitter: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of a channel's contrast."""
    is_flipped: bool = True
    """Random flips and quarter turns."""


class OptimizerSettings(Settings):
    """AdamW with warm-up and a cosine; weight decay spares A_log, D, norms, biases and embeddings."""

    base_learning_rate: Annotated[float, Field(gt=0)] = 1.5e-4
    """Learning rate at a batch of 256 crops; scaled linearly with the batch."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    beta1: Share = 0.9
    beta2: Share = 0.95
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the steps over which the learning rate rises."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    ema_decay: Share = 0.999
    """Decay of the moving average of the weights, which is what `embed` uses; lower in the first steps."""


class PretrainSettings(Settings):
    """`cellvim pretrain`: learn an encoder from unlabelled plates."""

    plates: tuple[Path, ...] = ()
    """Plates, or folders of plates."""
    out: Path = Path("run")
    """Run folder."""
    preset: Preset = "nano"
    """Size of the model; keys under `model` win over it."""
    steps: Annotated[int, Field(ge=0)] = 1000
    """Optimiser steps; 0 writes the untrained encoder."""
    batch_size: Positive = 32
    """Crops per step."""
    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_every: Positive = 100
    """Steps between checkpoints: what a kill can cost at most."""
    log_every: Positive = 20
    """Steps between lines of the log."""
    overwrite: bool = False
    """Start over in a run folder made with other settings."""
    is_synthetic: bool = False
    """Say on the run's page that the data are synthetic."""
    model: ModelSettings = ModelSettings()
    masking: MaskingSettings = MaskingSettings()
    crops: CropSettings = CropSettings()
    optimizer: OptimizerSettings = OptimizerSettings()

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_model(cls, content: Any) -> Any:
        if not isinstance(content, dict) or isinstance(content.get("model"), ModelSettings):
            return content
        chosen = PRESETS.get(content.get("preset", "nano"), {})
        return {**content, "model": merge(dict(chosen), content.get("model") or {})}

    @model_validator(mode="after")
    def _patches_tile_the_crop(self) -> Self:
        if self.crops.crop_px % self.model.patch_px:
            msg = f"crop_px={self.crops.crop_px} is not a multiple of patch_px={self.model.patch_px}"
            raise ValueError(msg)
        return self


class EmbedSettings(Settings):
    """`cellvim embed`: one row of features per well, field or crop."""

    plates: Annotated[tuple[Path, ...], Field(min_length=1)]
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
    overwrite: bool = False


class EvaluateSettings(Settings):
    """`cellvim evaluate`: how good are the profiles of one or more tables?"""

    tables: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Profile tables: Parquet or CSV, ours or a peer's."""
    out: Path
    """Folder that receives report.html, metrics.json and the tables behind them."""
    platemap: Path | None = None
    """Plate map joined by plate and well, for tables that carry none."""
    perturbation: str | None = None
    """Column that says what was done to a well; `Metadata_Perturbation` if absent."""
    control: str | None = None
    """Negative controls as ``COLUMN=VALUE``, for example ``Metadata_broad_sample=DMSO``."""
    label: str | None = None
    """Column that the probes predict; the perturbation if absent."""
    normalize: Normalization = "sphere"
    tasks: tuple[TaskName, ...] = ("activity", "distinctiveness", "replicate_retrieval", "probe")
    null_size: Positive = 10000
    """Random rank lists behind each p-value, where they cannot all be counted."""
    bootstraps: Positive = 1000
    """Resamples behind each interval."""
    seed: Annotated[int, Field(ge=0)] = 0
    title: str | None = None
    """Heading of the report."""
    is_synthetic: bool = False
    """Say on every page that the data are synthetic."""
    overwrite: bool = False
    """Replace results of other inputs or settings."""


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
