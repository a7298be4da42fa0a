"""Writing `run.json` beside an output."""

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellvim import __version__
from cellvim.atomic import read_json, write_json
from cellvim.config import Settings
from cellvim.provenance import surroundings
from cellvim.provenance.hashes import sha256_of_file
from cellvim.provenance.record import SCHEMA, Artifact, recipe_sha256

ATTEMPTS = "attempts.json"


@dataclass
class Run:
    """What one command did. Times and machine live here only: outputs themselves hold nothing that changes.

    Args:
        stage: Name of the command, for example ``"embed"``.
        settings: Its resolved settings.
    """

    stage: str
    settings: Settings
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    reads: list[Artifact] = field(default_factory=list)
    outputs: list[Artifact] = field(default_factory=list)
    earlier: Sequence[dict[str, Any]] = ()
    """Attempts before this one."""
    _started: float = field(default_factory=time.time)
    _code: str = field(default_factory=surroundings.code_sha256)
    """Of what was loaded: a checkout may change under a run of days."""
    _cwd: str = field(default_factory=os.getcwd)

    def record_input(
        self, name: str | Path, sha256: str, path: Path | str | None = None, kind: str = "file"
    ) -> None:
        """Note what decides the result; with its path, so that it can be found again."""
        self.inputs[str(name)] = sha256
        if path is not None:
            label = Path(path).name if str(name) == str(path) else str(name)
            self.reads.append(Artifact(name=label, kind=kind, path=str(path), sha256=sha256))

    def write(self, path: Path) -> dict[str, Any]:
        """Write the record beside its output and return it."""
        record = self.as_dict(path)
        write_json(path, record)
        return record

    def as_dict(self, path: Path | str | None = None) -> dict[str, Any]:
        """The record, for a file at `path`."""
        ended = time.time()
        settings = self.settings.model_dump(mode="json")
        return {
            "schema_version": SCHEMA,
            "cellvim": __version__,
            "code": {"sha256": self._code, "commit": surroundings.commit()},
            "command": surroundings.current_command(),
            "cwd": self._cwd,
            "record": None if path is None else str(path),
            "environment": surroundings.recorded_environment(),
            "stage": self.stage,
            "settings": settings,
            "settings_sha256": self.settings.sha256(),
            "recipe_sha256": recipe_sha256(self.stage, settings),
            "seed": getattr(self.settings, "seed", None),
            "inputs": self.inputs,
            "reads": [artifact.model_dump(mode="json", exclude_defaults=True) for artifact in self.reads],
            "outputs": [artifact.model_dump(mode="json", exclude_defaults=True) for artifact in self.outputs],
            "counts": self.counts,
            "facts": self.facts,
            "packages": surroundings.package_versions(),
            "machine": {"platform": platform.platform(), "host": platform.node(), "cpus": os.cpu_count()},
            "started": _spelled(self._started),
            "ended": _spelled(ended),
            "seconds": round(ended - self._started, 3),
            "attempts": [*self.earlier, self.attempt],
        }

    @property
    def attempt(self) -> dict[str, Any]:
        """When, where and by what this attempt was begun."""
        return {
            "started": _spelled(self._started),
            "host": platform.node(),
            "command": surroundings.current_command(),
        }


def note_attempt(run: Run, folder: Path) -> None:
    """Add this attempt to those noted in the folder of unfinished work, and the earlier ones to the run.

    What was killed writes no record of its own.
    """
    path = folder / ATTEMPTS
    try:
        earlier = [dict(attempt) for attempt in read_json(path)]
    except (OSError, ValueError, TypeError):
        # None yet, or damaged: it decides nothing, and the work must go on.
        earlier = []
    run.earlier = tuple(earlier)
    write_json(path, [*earlier, run.attempt])


def files_written(paths: Iterable[Path]) -> list[Artifact]:
    """Files that a run has made, each with its hash; those that are not there are left out."""
    return [
        Artifact(name=path.name, path=str(path), sha256=sha256_of_file(path))
        for path in paths
        if path.is_file()
    ]


def complete_record(path: Path, outputs: Iterable[Path]) -> None:
    """Add the outputs to a record whose run was killed between the output and the end."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return
    if isinstance(record, dict) and not record.get("outputs"):
        listed = [
            artifact.model_dump(mode="json", exclude_defaults=True) for artifact in files_written(outputs)
        ]
        write_json(path, record | {"outputs": listed})


def _spelled(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
