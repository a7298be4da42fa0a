"""Settings, checked once at the edge. Code past this package receives valid values and never re-checks them.

One class per stage. Flags of the command line and, for pretraining, keys of a YAML file under `configs/` set the
attributes documented here.
"""

from cellvim.config.base import Settings, merge
from cellvim.config.model import PRESETS, Backbone, ModelSettings, Preset
from cellvim.config.stages import (
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    IlluminationMethod,
    IlluminationMode,
    ImportSettings,
    IngestSettings,
    Normalization,
    SourceKind,
    TaskName,
)
from cellvim.config.training import (
    AlignmentSettings,
    CropSettings,
    EngineSettings,
    MaskingSettings,
    OptimizerSettings,
    PretrainSettings,
    SupervisedSettings,
)

__all__ = [
    "PRESETS",
    "AlignmentSettings",
    "Backbone",
    "CropSettings",
    "DemoSettings",
    "EmbedSettings",
    "EngineSettings",
    "EvaluateSettings",
    "IlluminationMethod",
    "IlluminationMode",
    "ImportSettings",
    "IngestSettings",
    "MaskingSettings",
    "ModelSettings",
    "Normalization",
    "OptimizerSettings",
    "Preset",
    "PretrainSettings",
    "Settings",
    "SourceKind",
    "SupervisedSettings",
    "TaskName",
    "merge",
]
