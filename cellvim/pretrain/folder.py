"""The run folder: whose it is, whether it is complete, and what may be replaced."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvim.atomic import read_json, remove_leftovers, write_json
from cellvim.errors import OutputExistsError
from cellvim.model import weights_sha256

logger = logging.getLogger(__name__)

OWN_FILES = (
    "summary.json",
    "model.safetensors",
    "README.md",
    "settings.yaml",
    "metrics.jsonl",
    "loss.png",
    "reconstructions.png",
    "classifier.safetensors",
    "holdout.json",
    "report.html",
    "run.json",
)
"""What a run writes, in the order in which it is taken back: first what says that the run is complete."""
COMPARED_FILES = tuple(name for name in OWN_FILES if name not in ("summary.json", "report.html", "run.json"))
"""Those without times and places: the same run writes the same bytes."""


@dataclass(frozen=True)
class RunFolder:
    """One run folder, held under its lock.

    Args:
        path: The folder.
        identity: Hash of all that decides the weights of the run that wants it.
    """

    path: Path
    identity: str

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether this very run is complete, and its weights are those it wrote."""
        summary = self.read_summary()
        weights = self.path / "model.safetensors"
        return (
            summary.get("identity") == self.identity
            and weights.is_file()
            and weights_sha256(weights) == summary["weights_sha256"]
        )

    @property
    def threads(self) -> int | None:
        """Threads that the run began with; None before it has begun."""
        return self._begun().get("threads")

    def read_summary(self) -> dict[str, Any]:
        path = self.path / "summary.json"
        return dict(read_json(path)) if path.is_file() else {}

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Say that the run is complete; nothing is written after this."""
        write_json(self.path / "summary.json", {**summary, "identity": self.identity})

    def open(self, *, overwrite: bool) -> None:
        """Make the folder ready for this run: go on with it, or begin.

        An unfinished run of the same identity always goes on, with `overwrite` too: a job that is preempted and
        started again by the same command would otherwise never end.

        Raises:
            OutputExistsError: The folder holds another run or files of somebody else, and `overwrite` is off.
        """
        self.refuse_if_taken(overwrite=overwrite)
        if self._owner != self.identity or self.is_finished:
            self._clear()
        remove_leftovers(self.path)

    def begin(self, computes_with: dict[str, Any]) -> None:
        """Record whose folder this is from now on, and how it computes; warn if it did so differently before."""
        before = self._begun()
        changed = [
            f"{name} {before[name]} before, {value} now"
            for name, value in computes_with.items()
            if before.get(name, value) != value
        ]
        if changed:
            logger.warning("the last bits may differ from a run without interruption: %s", "; ".join(changed))
        write_json(self.checkpoints / "identity.json", {"identity": self.identity, **computes_with})

    def refuse_if_taken(self, *, overwrite: bool) -> None:
        """Write nothing into a folder that is not this run's.

        Raises:
            OutputExistsError: The folder holds another run or files of somebody else, and `overwrite` is off.
        """
        if overwrite or self._owner == self.identity or not self.path.exists():
            return
        if self._owner is not None:
            raise OutputExistsError(self.path, why="holds a run with other settings or plates")
        foreign = sorted(entry.name for entry in self.path.iterdir() if entry != self.checkpoints)
        if foreign:
            raise OutputExistsError(self.path, why=f"holds files of no pretraining run ({foreign[0]})")

    @property
    def _owner(self) -> str | None:
        return self._begun().get("identity") or self.read_summary().get("identity")

    def _clear(self) -> None:
        for name in OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        for checkpoint in self.checkpoints.glob("step-*"):
            checkpoint.unlink(missing_ok=True)
        for name in ("identity.json", "attempts.json"):
            (self.checkpoints / name).unlink(missing_ok=True)
        for events in (self.path / "tensorboard").glob("events.out.tfevents.*"):
            events.unlink()

    def _begun(self) -> dict[str, Any]:
        path = self.checkpoints / "identity.json"
        return dict(read_json(path)) if path.is_file() else {}
