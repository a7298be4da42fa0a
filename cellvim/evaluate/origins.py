"""Where the numbers come from: the chain behind the tables, and what decided each task."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cellvim import __version__
from cellvim.config import EvaluateSettings
from cellvim.errors import CellvimError
from cellvim.profiles import table_files
from cellvim.provenance import RECORDED_PACKAGES, Run, RunRecord, package_versions
from cellvim.provenance.chain import Node, follow_reads
from cellvim.provenance.telling import told

logger = logging.getLogger(__name__)

PACKAGES = (*RECORDED_PACKAGES, "umap-learn")
"""Told once; a step before this one names those that it had another version of."""
OF_EVERY_TASK = ("normalize", "average", "perturbation", "control", "batch")
RANDOM = ("bootstraps", "seed")
LABELS = ("label", "label_separator")
OF_TASKS: Mapping[str, tuple[str, ...]] = {
    "activity": ("null_size", *RANDOM),
    "distinctiveness": ("null_size", *RANDOM),
    "replicate_retrieval": ("different_position", "null_size", *RANDOM),
    "consistency": (*LABELS, "consensus", "null_size", *RANDOM),
    "nsc": (*LABELS, "consensus", *RANDOM),
    "nscb": (*LABELS, "consensus", *RANDOM),
    "percent_replicating": RANDOM,
    "recall": ("consensus", *RANDOM),
    "dose": ("dose", "null_size", *RANDOM),
    "probe": (*LABELS, *RANDOM),
    "batch": RANDOM,
}
"""Settings that a task asks for, beside those of every task."""


def provenance_of(run: Run, settings: EvaluateSettings, names: Mapping[str, Path]) -> dict[str, Any]:
    """Tell where every number of an evaluation comes from, without a path, a time or a machine.

    Args:
        run: Its inputs are noted.
        settings: How the tables are judged.
        names: Profile tables by name.
    """
    record = RunRecord.model_validate(run.as_dict())
    try:
        nodes = follow_reads(record, settings.out)
    except CellvimError as error:
        # The tables are as they are, and can be judged; only their past cannot be told.
        logger.warning("the records beside the tables cannot be followed: %s", error.found)
        nodes = [Node(record, settings.out)]
    chosen = settings.model_dump(mode="json")
    versions = package_versions(PACKAGES)
    return {
        **told(nodes, versions),
        "inputs": dict(run.inputs),
        "seed": settings.seed,
        "versions": {"cellvim": __version__, **versions},
        "tables": {name: _hashes(name, path, run) for name, path in names.items()},
        "tasks": {
            task: {key: chosen[key] for key in (*OF_EVERY_TASK, *OF_TASKS[task]) if chosen[key] is not None}
            for task in settings.tasks
        },
    }


def _hashes(name: str, path: Path, run: Run) -> str | dict[str, str]:
    """SHA-256 of a table, or of each file of a folder of them."""
    if not path.is_dir():
        return run.inputs[name]
    return {file.name: run.inputs[f"{name}/{file.name}"] for file in table_files(path)}
