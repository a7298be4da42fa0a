"""The output folder: who may write it, and the tables in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from cellvim.atomic import locked, read_json, write_parquet
from cellvim.config import EvaluateSettings
from cellvim.errors import OutputExistsError
from cellvim.evaluate.tasks import RETRIEVAL_TASKS, RetrievalResult
from cellvim.provenance import sha256_of_json

REPORT, METRICS, RUN = "report.html", "metrics.json", "run.json"
TABLES = tuple(f"{task}{kind}.parquet" for task in RETRIEVAL_TASKS for kind in ("", "_wells"))
OUTPUTS = (RUN, REPORT, METRICS, *TABLES)


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Hold the folder for the block's time; one made for a run that failed goes, one that was there stays.

    Raises:
        OutputExistsError: A file is in the way.
        LockedError: Another process is writing there.
    """
    if out.exists() and not out.is_dir():
        raise OutputExistsError(out, why="is not a folder", hint="choose another --out")
    was_there = out.exists()
    try:
        with locked(out):
            yield
    finally:
        if not was_there:
            with suppress(OSError):
                out.rmdir()


def require_own_or_empty(settings: EvaluateSettings, token: str) -> None:
    """Refuse to write over results of other inputs or settings, unless told to.

    Results of the same inputs and settings are computed again: they come out the same, byte for byte.

    Raises:
        OutputExistsError: Other results are in the folder.
    """
    present = [name for name in OUTPUTS if (settings.out / name).exists()]
    if not present or settings.overwrite or recorded_token(settings.out / RUN) == token:
        return
    raise OutputExistsError(settings.out, why=f"holds {present[0]} of other inputs or settings")


def recorded_token(path: Path) -> str | None:
    """Token of the run that made the folder; None if it is not ours or did not finish."""
    if not path.is_file():
        return None
    try:
        return str(read_json(path)["facts"]["token"])
    except (ValueError, KeyError, TypeError):
        return None


def token_of(settings: EvaluateSettings, inputs: Mapping[str, str]) -> str:
    """Hash of everything that decides the results."""
    content = settings.model_dump(mode="json", exclude={"out", "overwrite", "tables", "platemap"})
    return sha256_of_json({"settings": content, "inputs": dict(inputs)})


def remove_old_results(out: Path) -> None:
    """Delete what an earlier run left, its record first: a folder without one is never taken for complete."""
    for name in OUTPUTS:
        (out / name).unlink(missing_ok=True)


def write_tables(out: Path, results: Mapping[str, Mapping[str, RetrievalResult]]) -> None:
    """Write TASK.parquet and TASK_wells.parquet, the rows of all profile tables one after the other."""
    for task in RETRIEVAL_TASKS:
        found = {name: tasks[task] for name, tasks in results.items() if task in tasks}
        if found:
            write_stacked(out / f"{task}.parquet", {name: one.perturbations for name, one in found.items()})
            write_stacked(out / f"{task}_wells.parquet", {name: one.wells for name, one in found.items()})


def write_stacked(path: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    named = [
        table.insert_column(0, pl.Series("table", [name] * table.height, pl.String))
        for name, table in tables.items()
    ]
    write_parquet(path, pl.concat(named))
