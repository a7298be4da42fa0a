"""`run.json`: from any output back to the command, settings, seed, inputs and versions that made it."""

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cellvim import __version__
from cellvim.atomic import write_json
from cellvim.config import Settings

RECORDED_PACKAGES = (
    "numpy",
    "polars",
    "pyarrow",
    "scikit-learn",
    "tensorstore",
    "tifffile",
    "torch",
    "triton",
    "zarr",
)


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
    _started: float = field(default_factory=time.time)

    def record_input(self, name: str | Path, sha256: str) -> None:
        self.inputs[str(name)] = sha256

    def write(self, path: Path) -> dict[str, Any]:
        """Write the record beside its output and return it."""
        record = self.as_dict()
        write_json(path, record)
        return record

    def as_dict(self) -> dict[str, Any]:
        ended = time.time()
        return {
            "cellvim": __version__,
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "settings_sha256": self.settings.sha256(),
            "seed": getattr(self.settings, "seed", None),
            "inputs": self.inputs,
            "counts": self.counts,
            "facts": self.facts,
            "packages": package_versions(),
            "machine": {"platform": platform.platform(), "host": platform.node(), "cpus": os.cpu_count()},
            "started": datetime.fromtimestamp(self._started, UTC).isoformat(timespec="seconds"),
            "ended": datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds"),
            "seconds": round(ended - self._started, 3),
        }


def package_versions(names: Sequence[str] = RECORDED_PACKAGES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Hash of a JSON-able value that does not depend on key order."""
    return sha256_of(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
