"""Settings of a study: many plates, one report. The file that `cellvim study` works from."""

import re
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from cellvim.config.base import Positive, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
_FLAG = re.compile(r"[a-z][a-z0-9_-]*")
SET_BY_THE_STUDY = frozenset(
    {"out", "json", "model", "config", "overwrite", "dry_run", "left_out", "help", "each_layer"}
)
"""Flags that no section may set: the study itself does, or the person who runs it, or they ask for other files than a
report is made from."""


def _plain_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        msg = f"{name!r}: a name is made of letters, digits and ._+- and is at most 120 long"
        raise ValueError(msg)
    return name


def _flags(section: dict[str, Any]) -> dict[str, Any]:
    flags = {str(key).replace("-", "_"): value for key, value in section.items()}
    for key, value in flags.items():
        if not _FLAG.fullmatch(key):
            msg = f"{key!r} is not the name of a flag"
            raise ValueError(msg)
        if key in SET_BY_THE_STUDY:
            msg = f"{key} is set by the study itself, or not for a study"
            raise ValueError(msg)
        if not isinstance(value, str | int | float | bool | list):
            msg = f"{key}: expected a text, a number, true, false or a list of them, found {value!r}"
            raise ValueError(msg)  # noqa: TRY004 - pydantic reports ValueError only
    return flags


def _literal_path(path: Path) -> Path:
    """A shell would expand it; here a folder of that very name would be made."""
    if str(path).startswith("~") or "$" in str(path) or "{" in str(path):
        msg = f"{path}: ~, $VARIABLES and braces are not expanded here: write the path out"
        raise ValueError(msg)
    return path


Name = Annotated[str, AfterValidator(_plain_name)]
Flags = Annotated[dict[str, Any], BeforeValidator(lambda section: section or {}), AfterValidator(_flags)]


class StudyPlate(Settings):
    """One plate of a study, or whatever one call of `cellvim ingest` is to read."""

    name: Name
    """Names its folder and its table among the results; the plate itself keeps the name that its source gives it."""
    images: Path
    """Folder of its images, or a load_data.csv."""
    platemap: Path | None = None
    """Its plate map; that of the study if absent."""


def _kind_of(value: Any) -> str:
    """So that a mistake in one form of an entry is not reported as the lack of another."""
    if isinstance(value, str):
        return "pattern"
    return "list" if isinstance(value, list | tuple) else "plate"


PlateOrPattern = Annotated[
    Annotated[str, Tag("pattern")] | Annotated[StudyPlate, Tag("plate")], Discriminator(_kind_of)
]


class StepJob(Settings):
    """What one job of a step asks of the machine; each further attempt for twice the memory and time, up to the most."""

    cpus: Positive = 2
    memory_mb: Positive = 4000
    """Main memory in MB, at the first attempt."""
    minutes: Positive = 240
    """Time limit in minutes, at the first attempt."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs; several for `pretrain` start it by torchrun."""


# Classes of their own, so that a section that names one key keeps the others of its step.
class IngestJob(StepJob):
    memory_mb: Positive = 2000
    minutes: Positive = 120


class PretrainJob(StepJob):
    cpus: Positive = 4
    memory_mb: Positive = 8000
    minutes: Positive = 2880


class EvaluateJob(StepJob):
    memory_mb: Positive = 8000


class StudyJobs(Settings):
    """How the steps become jobs. None of it changes a result, but for last bits with the number of threads or GPUs."""

    plates_per_job: Positive = 1
    """Plates that one cluster job works through, one after the other."""
    attempts: Positive = 3
    """How often a step is tried before its plate is given up."""
    most_memory_mb: Positive | None = None
    """What no attempt asks for more of, in MB: the memory of the cluster's largest node."""
    most_minutes: Positive | None = None
    """What no attempt asks for more of: the time limit of the partition, in minutes."""
    partition: str | None = None
    """Slurm partition."""
    account: str | None = None
    """Slurm account."""
    ingest: IngestJob = IngestJob()
    pretrain: PretrainJob = PretrainJob()
    embed: StepJob = StepJob()
    evaluate: EvaluateJob = EvaluateJob()


class StudySettings(Settings):
    """A study file: plates, plate maps, what is trained and what is asked, to one report."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    """Title of the report."""
    out: Annotated[Path, AfterValidator(_literal_path)] = Path("results")
    """Folder that receives everything."""
    plates: Annotated[
        Annotated[str, Tag("pattern")]
        | Annotated[tuple[PlateOrPattern, ...], Field(min_length=1), Tag("list")],
        Discriminator(_kind_of),
    ]
    """Plates: a list of them, patterns such as ``images/*``, or a CSV file with columns name, images, platemap."""
    platemap: Path | None = None
    """Plate map of all plates, or a list of barcodes with the map of each."""
    ingest: Flags = Field(default_factory=dict)
    """Flags of `cellvim ingest`."""
    pretrain: dict[str, Any] | None = None
    """Content of a settings file of `cellvim pretrain`; see configs/."""
    pretrain_plates: tuple[str, ...] = ()
    """Names, or patterns of names, of the plates to train on; all if empty."""
    model: Path | None = None
    """A trained model, to embed with instead of training one."""
    embed: Flags = Field(default_factory=dict)
    """Flags of `cellvim embed`."""
    evaluate: Flags = Field(default_factory=dict)
    """Flags of `cellvim evaluate`."""
    jobs: StudyJobs = StudyJobs()

    @model_validator(mode="after")
    def _one_origin_of_the_model(self) -> Self:
        if (self.pretrain is None) == (self.model is None):
            msg = "say either what to train (`pretrain:`) or which model to use (`model:`)"
            raise ValueError(msg)
        return self
