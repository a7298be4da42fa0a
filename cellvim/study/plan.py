"""From a study file to the public commands of every step, and what each asks of the machine."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from cellvim.atomic import write_text
from cellvim.config import PretrainSettings, StudyPlate, StudySettings
from cellvim.errors import InputError, NotFoundError
from cellvim.study.plates import study_plates

Command = tuple[str, ...]
LEFT_OUT_FILE = "left_out.csv"
_SHOWN = 8


@dataclass(frozen=True)
class StudyPlan:
    """Every command of a study. Paths in them are relative to `folder` where the study file's are.

    Attributes:
        file: The study file.
        folder: Its folder, where all commands are run.
        out: Folder of the results, as the study file names it.
        left_out: Names of plates that failed and are gone on without.
    """

    file: Path
    folder: Path
    settings: StudySettings
    all_plates: tuple[StudyPlate, ...]
    left_out: frozenset[str] = frozenset()

    @property
    def out(self) -> Path:
        return self.settings.out

    @property
    def plates(self) -> tuple[StudyPlate, ...]:
        """Those that are not left out."""
        return tuple(plate for plate in self.all_plates if plate.name not in self.left_out)

    @property
    def batches(self) -> dict[str, list[str]]:
        """First plate to the plates that one job works through. Of all plates: leaving one out moves no other."""
        names, size = [plate.name for plate in self.all_plates], self.settings.jobs.plates_per_job
        return {names[start]: names[start : start + size] for start in range(0, len(names), size)}

    @property
    def results(self) -> Path:
        """`out`, whatever the working folder."""
        return self.folder / self.out

    @property
    def pretrain_file(self) -> Path:
        return self.out / "pretrain.yaml"

    @property
    def trained_on(self) -> tuple[StudyPlate, ...]:
        """Plates that the encoder learns from; empty where a model is given."""
        wanted = self.settings.pretrain_plates or ("*",)
        if self.settings.pretrain is None:
            return ()
        return tuple(
            plate for plate in self.plates if any(fnmatchcase(plate.name, pattern) for pattern in wanted)
        )

    def without(self, names: Collection[str]) -> "StudyPlan":
        """Go on without these plates."""
        return replace(self, left_out=self.left_out | frozenset(names))

    def ingest(self, plate: StudyPlate) -> Command:
        platemap = plate.platemap or self.settings.platemap
        maps = ("--platemap", as_path(platemap)) if platemap is not None else ()
        place = self.out / "plates" / plate.name
        return (
            "cellvim",
            "ingest",
            as_path(plate.images),
            "--out",
            str(place),
            *maps,
            *as_flags(self.settings.ingest),
        )

    def pretrain(self) -> Command | None:
        """None where a model is given. Its plates stand in `pretrain_file`: thousands are no command line."""
        if self.settings.pretrain is None:
            return None
        gpus = self.settings.jobs.pretrain.gpus
        torchrun = ("torchrun", "--standalone", "--nproc-per-node", str(gpus), "-m")
        start = (*torchrun, "cellvim") if gpus > 1 else ("cellvim",)
        return (*start, "pretrain", "--config", str(self.pretrain_file), "--out", str(self.out / "model"))

    def embed(self, plate: StudyPlate) -> Command:
        model = self.settings.model or self.out / "model"
        place, table = self.out / "plates" / plate.name, self.out / "profiles" / f"{plate.name}.parquet"
        return (
            "cellvim", "embed", str(place), "--model", str(model), "--out", str(table),
            *as_flags(self.settings.embed),
        )  # fmt: skip

    def evaluate(self) -> Command:
        flags = {"title": self.settings.name, **self.settings.evaluate}
        left_out = ("--left-out", str(self.out / LEFT_OUT_FILE)) if self.left_out else ()
        return (
            "cellvim", "evaluate", str(self.out / "profiles"), "--out", str(self.out / "report"), "--overwrite",
            *as_flags(flags), *left_out,
        )  # fmt: skip

    def commands(self) -> list[Command]:
        """All of them, in an order in which they can be run by hand."""
        pretrain = self.pretrain()
        return [
            *(self.ingest(plate) for plate in self.plates),
            *([pretrain] if pretrain else []),
            *(self.embed(plate) for plate in self.plates),
            self.evaluate(),
        ]

    def distinct_commands(self) -> list[Command]:
        """One of each step, which have the same flags for all plates."""
        pretrain, first = self.pretrain(), self.plates[0]
        return [self.ingest(first), *([pretrain] if pretrain else []), self.embed(first), self.evaluate()]

    def write_pretrain_file(self) -> None:
        """Write what `pretrain` reads: the study's settings, and its plates."""
        if self.settings.pretrain is None:
            return
        plates = [str(self.out / "plates" / plate.name) for plate in self.trained_on]
        content = {**self.settings.pretrain, "plates": plates, "out": str(self.out / "model")}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(self.folder / self.pretrain_file, text)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content: what Snakemake works from, and `cellvim study plan --json` prints."""
        pretrain = self.pretrain()
        return {
            "study": str(self.file.absolute()), "name": self.settings.name, "directory": str(self.folder), "out": str(self.out),
            "plates": {
                plate.name: {"ingest": shlex.join(self.ingest(plate)), "embed": shlex.join(self.embed(plate))}
                for plate in self.plates
            },
            "batches": self.batches,
            "left_out": sorted(self.left_out),
            "trained_on": [plate.name for plate in self.trained_on],
            "pretrain": shlex.join(pretrain) if pretrain else None,
            "pretrain_settings": {"settings": self.settings.pretrain, "plates": self.settings.pretrain_plates},
            "evaluate": shlex.join(self.evaluate()),
            "jobs": self.settings.jobs.model_dump(mode="json"),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [" ".join(map(shlex.quote, command)) for command in self.distinct_commands()]
        names = [plate.name for plate in self.plates]
        more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
        head = f"{self.settings.name}: {len(names)} plates: {', '.join(names[:_SHOWN])}{more}"
        where = f"in {self.folder}, for each plate (here {names[0]}) and once for all:"
        return "\n".join([head, where, *(f"  {line}" for line in lines)])


def read_study(file: Path) -> StudySettings:
    """Read a study file.

    Raises:
        NotFoundError: No such file.
        InputError: A key or value is wrong.
    """
    if not file.is_file():
        raise NotFoundError(file, expected="study file", hint=f"write one with: cellvim study init {file}")
    return StudySettings.from_yaml(file)


def plan_study(file: Path) -> StudyPlan:
    """Find a study's plates, and check what can be checked before the first of them is opened.

    Raises:
        NotFoundError: The study file, images, a plate map or the model are not there.
        InputError: A key or value is wrong.
    """
    settings = read_study(file)
    folder = file.absolute().parent
    plan = StudyPlan(file, folder, settings, study_plates(settings, folder))
    if settings.model is not None and not (folder / settings.model).exists():
        raise NotFoundError(
            folder / settings.model, expected="model", hint="`model:` is a run folder of pretrain"
        )
    if settings.pretrain is not None:
        if not plan.trained_on:
            found = (
                f"{file}: pretrain_plates: no plate has such a name ({', '.join(settings.pretrain_plates)})"
            )
            raise InputError(found, hint="`cellvim study plan` lists the names")
        _refuse_keys_of_the_study(settings.pretrain, file)
        PretrainSettings.checked({**settings.pretrain, "plates": ["plates"]}, origin=file)
    return plan


def _refuse_keys_of_the_study(pretrain: dict[str, Any], file: Path) -> None:
    named = sorted({"plates", "out", "overwrite"} & set(pretrain))
    if named:
        found = f"{file}: pretrain: {' and '.join(named)}: set by the study itself"
        raise InputError(found, hint="`plates:`, `pretrain_plates:` and `out:` of the study say it")


def as_path(path: Path) -> str:
    """Spell a path so that it is never taken for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def as_flags(section: dict[str, Any]) -> Command:
    """Spell a section of a study file as flags: true is a bare flag, false none, a list is joined by commas."""
    flags: list[str] = []
    for key, value in section.items():
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        elif value is not False:
            flags += [
                flag,
                ",".join(map(str, value))
                if isinstance(value, Sequence) and not isinstance(value, str)
                else str(value),
            ]
    return tuple(flags)
