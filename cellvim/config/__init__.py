"""Settings, checked once at the edge. Code past this package receives valid values and never re-checks them.

One class per stage. Flags of the command line and, for pretraining, keys of a YAML file under `configs/` set the
attributes documented here.
"""

from cellvim.config.base import Settings, merge
from cellvim.config.embedding import EmbedSettings
from cellvim.config.evaluation import (
    TASK_NAMES,
    Average,
    EvaluateSettings,
    Normalization,
    NormalizeSettings,
    TaskName,
)
from cellvim.config.model import PRESETS, Backbone, ModelSettings, Preset
from cellvim.config.stages import (
    DemoSettings,
    IlluminationMethod,
    IlluminationMode,
    ImportSettings,
    IngestSettings,
    SourceKind,
)
from cellvim.config.study import StepJob, StudyJobs, StudyPlate, StudySettings
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
    "TASK_NAMES",
    "AlignmentSettings",
    "Average",
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
    "NormalizeSettings",
    "OptimizerSettings",
    "Preset",
    "PretrainSettings",
    "Settings",
    "SourceKind",
    "StepJob",
    "StudyJobs",
    "StudyPlate",
    "StudySettings",
    "SupervisedSettings",
    "TaskName",
    "merge",
]
