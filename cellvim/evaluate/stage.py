"""The evaluate stage: profile tables in, metrics, tables and a report out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellvim.atomic import write_json, write_text
from cellvim.config import EvaluateSettings, TaskName
from cellvim.errors import InputError
from cellvim.evaluate.choice import choose_table
from cellvim.evaluate.comparison import compare_tables
from cellvim.evaluate.left_out import read_left_out
from cellvim.evaluate.origins import provenance_of
from cellvim.evaluate.outputs import (
    METRICS,
    REPORT,
    RUN,
    output_folder,
    own_files,
    replaced_results,
    require_own_or_empty,
    stacked_tables,
    token_of,
    write_tables,
)
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.screen import Screen
from cellvim.evaluate.summary import EvaluateSummary
from cellvim.evaluate.tasks import TASKS
from cellvim.profiles import (
    Profiles,
    aggregate,
    annotate,
    normalize,
    read_profiles,
    table_files,
    thumbnails_files,
    without_pictures,
)
from cellvim.profiles.schema import require_file, table_name
from cellvim.provenance import Run, files_written, sha256_of_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluatedTable:
    """One profile table and what became of it.

    Args:
        name: Name of the table, unlike any other's.
        screen: Its wells.
        results: What each task found.
    """

    name: str
    screen: Screen
    results: Mapping[TaskName, TaskResult]

    @property
    def raw(self) -> Profiles:
        """Wells before normalisation."""
        return self.screen.raw

    @property
    def normalized(self) -> Profiles:
        return self.screen.normalized

    @property
    def metrics(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "wells": self.raw.metadata.height,
            "plates": len(self.raw.plates),
            "negative_controls": int(self.raw.is_control.sum()),
            "features": len(self.raw.feature_names),
            "features_used": len(self.normalized.feature_names),
            "notes": list(self.normalized.notes),
            "warnings": list(self.normalized.warnings),
            "tasks": {task: result.metrics for task, result in self.results.items()},
        }


def evaluate_tables(settings: EvaluateSettings) -> EvaluateSummary:
    """Say how good the profiles of one or more tables are.

    Reads and annotates each table, averages it to wells, normalises on controls, runs the tasks, and writes
    `metrics.json`, `TASK.parquet` and `TASK_wells.parquet`, `report.html` and, last, `run.json`. The same
    inputs and settings give the same bytes; they may be run again into the same folder.

    Raises:
        NotFoundError: A table or the plate map is not there.
        InputError: A table lacks what a task or the normalisation needs.
        OutputExistsError: The folder holds results of other inputs or settings.
    """
    settings = settings.model_copy(update={"tables": without_pictures(settings.tables)})
    with output_folder(settings.out):
        names = table_names(settings.tables)
        run = Run("evaluate", settings)
        inputs = input_files(settings, names)
        for name, path in inputs.items():
            run.record_input(name, sha256_of_file(path), path)
        run.facts["token"] = token_of(settings, run.inputs)
        require_own_or_empty(settings, run.facts["token"], inputs.values())
        tables = [evaluate_table(name, path, settings) for name, path in names.items()]
        metrics = collect_metrics(tables, settings) | {"provenance": provenance_of(run, settings, names)}
        stacked = stacked_tables({table.name: table.results for table in tables})
        page = rendered_page(tables, metrics, settings, run.inputs)
        # Nothing of an earlier run is touched before all that is to take its place has been made.
        with replaced_results(settings.out, run.facts["token"]):
            write_json(settings.out / METRICS, metrics)
            write_tables(settings.out, stacked)
            write_text(settings.out / REPORT, page)
            run.counts = {"tables": len(tables), "wells": sum(table.raw.metadata.height for table in tables)}
            run.outputs = files_written(own_files(settings.out))
            run.write(settings.out / RUN)
    return EvaluateSummary(out=settings.out, report=settings.out / REPORT, metrics=metrics)


def table_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each table by its file, or by folder and file where files share a name.

    Raises:
        InputError: The same table is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        found = "the same table is given twice"
        raise InputError(found, hint="give each table once")
    plain = [table_name(path) for path in paths]
    names = [
        name if plain.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(plain, paths, strict=True)
    ]
    numbered = [
        name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)
    ]
    return dict(zip(numbered, paths, strict=True))


def input_files(settings: EvaluateSettings, names: Mapping[str, Path]) -> dict[str, Path]:
    """Files that decide the results, by the name they go under in records.

    The pictures beside the first table are one of them, if they are there: the report shows them.

    Raises:
        NotFoundError: A table or the plate map is not there.
    """
    files = {
        f"{name}/{file.name}" if path.is_dir() else name: file
        for name, path in names.items()
        for file in table_files(path)
    }
    if settings.platemap is not None:
        files["plate map"] = settings.platemap
    if settings.relations is not None:
        files["relations"] = settings.relations
    if settings.left_out is not None:
        files["left out"] = settings.left_out
    for path in files.values():
        require_file(path)
    pictures = thumbnails_files(settings.tables[0])
    is_folder = settings.tables[0].is_dir()
    return files | {f"thumbnails/{path.name}" if is_folder else "thumbnails": path for path in pictures}


def evaluate_table(name: str, path: Path, settings: EvaluateSettings) -> EvaluatedTable:
    """Read one table and run every task that was asked for."""
    logger.info("%s: reading %s", name, path)
    profiles = annotate(
        read_profiles(path),
        platemap=settings.platemap,
        perturbation=settings.perturbation,
        control=settings.control,
    )
    raw = warn_of_labels(warn_of_seen_controls(aggregate(profiles, settings.average), settings))
    batch = Screen(raw, raw, settings).batch_column
    normalized = normalize(raw, settings.normalize, batch=batch)
    screen = Screen(raw, normalized, settings)
    results: dict[TaskName, TaskResult] = {}
    for task, run in TASKS.items():
        if task in settings.tasks:
            logger.info("%s: %s", name, task)
            results[task] = run(screen)
    return EvaluatedTable(name, screen, results)


def warn_of_labels(profiles: Profiles) -> Profiles:
    """Say so where the model has learned from labels: on plates that it was trained on it knows the answers."""
    card = profiles.provenance.get("model")
    if not isinstance(card, Mapping) or not card.get("labels_used"):
        return profiles
    seen = sorted(set(profiles.plates) & set(card.get("plates", ())))
    trained = f"{len(seen)} of {len(profiles.plates)} plates here were trained on" + (
        f" ({', '.join(seen)}), and their scores say little about new ones" if seen else ""
    )
    return profiles.warning(
        f"the model learned from labels ({card.get('objective')}: {card['labels_used']}); {trained}"
    )


def warn_of_seen_controls(profiles: Profiles, settings: EvaluateSettings) -> Profiles:
    """Say so where a table was normalised by the very controls that activity is to be judged by."""
    done = profiles.provenance.get("normalized")
    if (
        "activity" not in settings.tasks
        or not isinstance(done, Mapping)
        or done.get("method") in (None, "none")
    ):
        return profiles
    return profiles.warning(
        f"this table has been normalised ({done['method']}) by the controls that activity is judged by: they lie "
        "closer to the centre than wells that were not used, so activity is too optimistic; "
        "evaluate the table that it was made from instead"
    )


def collect_metrics(tables: Sequence[EvaluatedTable], settings: EvaluateSettings) -> dict[str, Any]:
    """Content of metrics.json: the tasks of every table, and once more those of the first."""
    described = [table.metrics for table in tables]
    return {
        "normalize": settings.normalize,
        "seed": settings.seed,
        "tables": described,
        "tasks": described[0]["tasks"],
        "comparison": compare_tables(tables, settings),
        "choice": choose_table(tables, settings),
        "left_out": read_left_out(settings.left_out),
    }


def rendered_page(
    tables: Sequence[EvaluatedTable],
    metrics: dict[str, Any],
    settings: EvaluateSettings,
    inputs: Mapping[str, str],
) -> str:
    from cellvim.evaluate.page_content import page_content
    from cellvim.evaluate.report import render

    logger.info("laying out %s", settings.out / REPORT)
    return render(page_content(tables, metrics, settings, inputs))
