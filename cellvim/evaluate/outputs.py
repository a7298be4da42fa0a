"""The output folder: who may write it, and the tables in it."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from cellvim.atomic import locked, read_json, remove_leftovers, write_json, write_parquet
from cellvim.config import TASK_NAMES, EvaluateSettings, TaskName
from cellvim.errors import OutputExistsError
from cellvim.evaluate.results import TaskResult
from cellvim.provenance import sha256_of_json

REPORT, METRICS, RUN = "report.html", "metrics.json", "run.json"
UNFINISHED = "unfinished.json"
"""Whose the results are until the record is there: of a run that was killed, or that ran out of disk."""
OUTPUTS = (RUN, REPORT, METRICS)
KINDS = ("", "wells", "perturbations", "histogram", "plates", "doses", "confusion")
"""Tables that tasks give. Any other file in the folder is somebody else's, whatever its name."""


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


def require_own_or_empty(settings: EvaluateSettings, token: str, inputs: Iterable[Path]) -> None:
    """Refuse to write over results of other inputs or settings, unless told to; and over what is read, always.

    Results of the same inputs and settings are computed again: they come out the same, byte for byte.

    Raises:
        OutputExistsError: Other results are in the folder, or an input that is named like a result.
    """
    read = {path.resolve() for path in inputs}
    mistaken = [path.name for path in own_files(settings.out) if path.resolve() in read]
    if mistaken:
        raise OutputExistsError(
            settings.out,
            why=f"holds {mistaken[0]}, which is read here and would be replaced",
            hint="choose another --out",
        )
    present = [path.name for path in own_files(settings.out)]
    known = {recorded_token(settings.out / name) for name in (RUN, UNFINISHED)}
    if not present or settings.overwrite or token in known:
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
    content = settings.model_dump(
        mode="json", exclude={"out", "overwrite", "tables", "platemap", "relations"}
    )
    return sha256_of_json({"settings": content, "inputs": dict(inputs)})


@contextmanager
def replaced_results(out: Path, token: str) -> Iterator[None]:
    """Delete what an earlier run left, and let the block write what is to take its place, its record last.

    The old record goes first: a folder without one is never taken for complete. A block that comes to no end leaves
    a mark by which the same command knows the folder again.
    """
    write_json(out / UNFINISHED, {"facts": {"token": token}})
    remove_leftovers(out)
    for path in own_files(out):
        path.unlink()
    yield
    (out / UNFINISHED).unlink()


def own_files(out: Path) -> list[Path]:
    """What an evaluation has written into the folder, its record first."""
    tables = [f"{stem_of(task, kind)}.parquet" for task in TASK_NAMES for kind in KINDS]
    return [out / name for name in (*OUTPUTS, *tables) if (out / name).exists()]


def stem_of(task: TaskName, kind: str) -> str:
    return f"{task}_{kind}" if kind else task


def stacked_tables(results: Mapping[str, Mapping[TaskName, TaskResult]]) -> dict[str, pl.DataFrame]:
    """Tables by the name of their file, without ending: the rows of all profile tables one after the other.

    Args:
        results: By name of the profile table, what each task found.
    """
    found: dict[str, list[pl.DataFrame]] = {}
    for name, tasks in results.items():
        for task, result in tasks.items():
            for kind, table in result.tables.items():
                named = pl.Series("table", [name] * table.height, pl.String)
                found.setdefault(stem_of(task, kind), []).append(table.clone().insert_column(0, named))
    return {stem: pl.concat(tables, how="diagonal_relaxed") for stem, tables in found.items()}


def write_tables(out: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    for stem, table in tables.items():
        write_parquet(out / f"{stem}.parquet", table)
