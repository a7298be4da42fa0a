"""Settings of `cellvim pretrain`: what is hidden, cropped, learned, and how steps are computed."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cellvim.config.base import Location, Positive, Settings, Share, merge
from cellvim.config.model import PRESETS, ModelSettings, Preset


class MaskingSettings(Settings):
    """What the encoder does not see, and how its guess is judged."""

    mask_ratio: Share = 0.75
    """Share of patches hidden, drawn independently in each channel."""
    channel_steps: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of steps that draw k of 0 to T - 1 channels and hide those whole, so that one stain is predicted from
    the others. k = 0 leaves nothing to predict and hides patches: (T - 1) / T of this share hide channels."""
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


class SupervisedSettings(Settings):
    """Objective `supervised`: predict a column of the plate map, and say honestly how well."""

    label: str = "Metadata_Perturbation"
    """Column of the plate map that is predicted, with or without `Metadata_`, in any case."""
    group: str | None = None
    """Column whose values are held out whole in the perturbation-held-out split. If None, the compound where the
    plate map names one, so that all its doses are on one side, else the perturbation. The same as `label` leaves that
    split undefined, as nobody can name what they never saw."""
    held_out_plates: tuple[str, ...] = ()
    """Plates never trained on; if empty, about a fifth of them by hash, one at least where there are two."""
    folds: Annotated[int, Field(ge=2)] = 5
    """One fold of this many, by hash, is held out in each split."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    channel_sampling: bool = True
    """Show a random number of channels in each step (hierarchical channel sampling), as in the paper; nothing else
    is hidden, and of `masking` only `name_dropout` plays a part. A model of joint tokens is always shown all."""


class AlignmentSettings(Settings):
    """Objective `align`: masked reconstruction, and two views of the same biology shall look alike."""

    positives: Literal["replicate", "well"] = "replicate"
    """What a crop is drawn towards: a replicate of its perturbation on another plate, which needs the plate map, or
    another field of its own well, which needs no labels."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the alignment loss beside that of the reconstruction."""
    temperature: Annotated[float, Field(gt=0)] = 0.2
    """Scale of the cosine similarities; lower looks at the nearest negatives only."""


class EngineSettings(Settings):
    """How steps are computed; what a step learns from is the same whatever is set here, up to rounding."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Numbers of the large products; weights, scan and residual stream are float32 always. `auto` takes bf16 on a
    GPU that has it."""
    accumulate: Positive = 1
    """Parts that a step's batch is computed in, one after the other, to save memory."""
    is_checkpointed: bool = False
    """Keep only the input of each block and compute it again on the way back: slower, in less memory."""
    is_compiled: bool = False
    """Compile the model with `torch.compile`."""
    workers: Positive = 2
    """Threads that read crops ahead of the model."""
    is_logged_to_tensorboard: bool = False
    """Also write RUN/tensorboard; needs the extra `tensorboard`."""


class PretrainSettings(Settings):
    """`cellvim pretrain`: learn an encoder from plates, without labels unless the objective asks for them."""

    plates: tuple[Location, ...] = ()
    """Plates, or folders of plates."""
    out: Path = Path("run")
    """Run folder."""
    objective: Literal["mae", "supervised", "align"] = "mae"
    """What is learned: hidden pixels, a label, or hidden pixels and which wells belong together."""
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
    supervised: SupervisedSettings = SupervisedSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    engine: EngineSettings = EngineSettings()

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

    @model_validator(mode="after")
    def _masking_fits_the_tokens(self) -> Self:
        if self.objective == "supervised":
            return self
        if self.model.has_class_token:
            msg = f"objective {self.objective} hides tokens, which a model with a class token cannot do"
            raise ValueError(msg)
        if self.model.tokenization == "joint" and self.masking.channel_steps > 0:
            msg = "tokens over all channels cannot hide one of them: set masking.channel_steps to 0"
            raise ValueError(msg)
        if self.model.tokenization == "joint" and self.masking.channel_sampling:
            msg = "tokens over all channels cannot leave one out: set masking.channel_sampling to false"
            raise ValueError(msg)
        return self
