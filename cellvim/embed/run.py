"""The embedding stage: plates and a model in, one Parquet table out."""

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from cellvim import __version__
from cellvim.atomic import read_json, write_json
from cellvim.config import EmbedSettings
from cellvim.embed.anndata import anndata_path, is_written, warn_of_stale, write_anndata
from cellvim.embed.blocks import other_blocks
from cellvim.embed.devices import Worker, embed_in_processes, plan_workers
from cellvim.embed.forward import PRECISION
from cellvim.embed.parts import Books, join_parts, lost_in, make_part, read_books
from cellvim.embed.plan import Output, Plan, opened_parts, plan_run
from cellvim.embed.writer import read_metadata
from cellvim.errors import InputError, LockedError, SomeFailedError
from cellvim.model import compute_with, explain_out_of_memory
from cellvim.profiles.schema import METADATA_PREFIX, PLATE, WELL
from cellvim.progress import progress_bar
from cellvim.provenance import Run, complete_record, files_written

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedSummary:
    """Wells in = embedded + failed + empty + skipped, always."""

    out: Path
    tables: tuple[Path, ...]
    """`out`, or one table per block."""
    rows: int
    features: int
    wells: int
    embedded: int
    failed: dict[str, str]
    """`PLATE WELL` and the reason why it has no row."""
    skipped: dict[str, str]
    """`PLATE WELL` and the reason why ingest had left it out already."""
    left_out: dict[str, str]
    """`PLATE WELL/SITE` and the reason why the field is not part of its well's row."""
    empty: dict[str, str]
    """`PLATE WELL` of wells without a row because their label images hold no whole object, which is no failure."""
    tallies: dict[str, int]
    """Tiles or objects, and how many of them were dropped; empty if nothing could be."""
    was_done: bool

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out), "tables": [str(table) for table in self.tables]}

    def __str__(self) -> str:
        state = "already done" if self.was_done else "done"
        counts = f"{self.wells} wells = {self.embedded} embedded + {len(self.failed)} failed"
        counts += f" + {len(self.empty)} without objects" if self.empty else ""
        counts += f" + {len(self.skipped)} skipped at ingest" if self.skipped else ""
        size = f"{self.rows} rows x {self.features} features"
        lines = [f"{table}  {size}  {counts}  {state}" for table in self.tables]
        lines += [f"  {what.replace('_', ' ')}: {count}" for what, count in self.tallies.items()]
        named = {"failed": self.failed, "without objects": self.empty, "skipped at ingest": self.skipped}
        named["field left out"] = self.left_out
        lines += [f"  {what}: {where}: {why}" for what, lost in named.items() for where, why in lost.items()]
        return "\n".join(lines)


def embed_plates(settings: EmbedSettings) -> EmbedSummary:
    """Embed every well of some plates; memory does not grow with their number.

    A finished plate is kept beside the output until all are done, so that an interrupted run goes on after it.

    Raises:
        InputError: Plates of one name, with different channels where features are kept per channel, or with
            stains that the model cannot know.
        OutputExistsError: The output was made from other plates, settings or weights.
        UsageError: A GPU or an extra is asked for and not there.
    """
    run = Run("embed", settings)
    plan = plan_run(settings)
    run.inputs.update(plan.inputs)
    run.reads.extend(plan.reads)
    if plan.is_done:
        _finish(plan)
        return _summarise(plan, was_done=True)
    with opened_parts(plan), explain_out_of_memory():
        workers = _plan_workers(plan, run)
        _make_parts(plan, workers)
        books = read_books(plan.parts)
        _refuse_nothing(plan, books)
        _record(run, plan, workers, books)
        for output in plan.outputs:
            join_parts(plan.parts, output.path, _provenance(plan, output, books), block=output.block)
            _write_anndata(plan, output)
        # Once more: what was made is known only now, and a table never lies there without a record.
        run.outputs = files_written(plan.files)
        run.write(plan.record)
    _warn_of_other_blocks(plan)
    return _summarise(plan, was_done=False)


def require_complete(summary: EmbedSummary) -> None:
    """Turn failed wells and unreadable fields into exit code 1, after everything else is on disk.

    Raises:
        SomeFailedError: Some wells failed, or some fields are not part of their wells.
    """
    lost = {**summary.failed, **summary.left_out}
    if lost:
        where, why = next(iter(lost.items()))
        found = f"{len(summary.failed)} wells and {len(summary.left_out)} fields failed, first {where}: {why}"
        raise SomeFailedError(found, hint=f"the other {summary.embedded} are in {summary.out}")


def _finish(plan: Plan) -> None:
    """Do what a run that was killed after it had written the table left to do."""
    for output in plan.outputs:
        _write_anndata(plan, output)
    complete_record(plan.record, plan.files)
    if plan.folder.exists():
        # Held by another process, it is about to be removed.
        with suppress(LockedError), opened_parts(plan):
            logger.info("%s is done; removing the parts it was put together from", plan.settings.out)


def _plan_workers(plan: Plan, run: Run) -> list[Worker]:
    """Workers with as many threads as before an interruption; a warning if the kernels are others.

    Notes the attempt, since a run that is killed writes no record.
    """
    workers = plan_workers(plan.settings, plan.device, len(plan.plates))
    record = plan.folder / "threads.json"
    before = read_json(record) if record.is_file() else {}
    if before.get("kernels", plan.kernels) != plan.kernels:
        was = before["kernels"]
        logger.warning(
            "plates embedded before were computed with %s kernels, now %s: last bits differ",
            was,
            plan.kernels,
        )
    threads = before.get("threads", workers[0].threads)
    run.earlier = tuple(before.get("attempts", ()))
    attempts = [*run.earlier, run.attempt]
    write_json(record, {"threads": threads, "kernels": plan.kernels, "attempts": attempts})
    return [replace(worker, threads=threads) for worker in workers]


def _make_parts(plan: Plan, workers: list[Worker]) -> None:
    missing = []
    for part in plan.parts:
        if part.is_done:
            logger.info("plate %s is embedded already", part.plate.name)
        else:
            missing.append(part)
    label = f"embed {missing[0].plate.name}" if len(missing) == 1 else f"embed {len(missing)} plates"
    with progress_bar(label, total=sum(part.plate.fields for part in missing)) as advance:
        if min(len(workers), len(missing)) > 1:
            embed_in_processes(missing, workers[: len(missing)], plan.recipe, advance=advance)
            return
        compute_with(workers[0].threads)
        encoder = plan.encoder.to(plan.device)
        for part in missing:
            make_part(part, encoder, plan.recipe, advance=advance)


def _refuse_nothing(plan: Plan, books: Books) -> None:
    if not books.embedded:
        reason = next(iter({**books.lost["failed"], **books.lost["empty"], **books.lost["skipped"]}.values()))
        wells = sum(plate.wells for plate in plan.plates)
        found = f"none of the {wells} wells could be embedded: {reason}"
        raise InputError(found, hint="look at the plate with: cellvim info PLATE")


def _provenance(plan: Plan, output: Output, books: Books) -> dict[str, Any]:
    """What a table says about itself; a reader can tell whether two tables may be mixed.

    Nothing in it changes from one run to the next: times and machines are in run.json.
    """
    settings = plan.settings
    return {
        "identity": output.identity,
        "cellvim": __version__,
        "model": plan.card.model_dump(mode="json"),
        "model_sha256": plan.model_sha256,
        "normalization": "clip to the plate's 0.1 and 99.9 percentiles, standardise per field and channel",
        "precision": PRECISION,
        "kernels": list(books.kernels),
        "plates": {plate.name: plate.fingerprint for plate in plan.plates},
        "channels": list(plan.plates[0].channels),
        "level": settings.level,
        "pool": settings.pool,
        "layers": list(settings.layers) if output.block is None else [output.block],
        "tile_px": plan.tile_px,
        "has_intensity": settings.has_intensity,
        "cutting": plan.cutting,
        "batch_size": settings.batch_size,
        "tallies": books.tallies,
        "unknown_stains": plan.unknown_stains,
        **books.lost,
    }


def _warn_of_other_blocks(plan: Plan) -> None:
    if plan.settings.each_layer:
        for path in other_blocks(plan.settings.out, [output.path for output in plan.outputs]):
            logger.warning("%s is of another run: keep it away from the tables written now", path)


def _record(run: Run, plan: Plan, workers: list[Worker], books: Books) -> None:
    """Write NAME.run.json: counts, and how long the encoder waited for pixels."""
    run.counts = {
        "wells": sum(plate.wells for plate in plan.plates),
        "embedded": books.embedded,
        **{name: len(lost) for name, lost in books.lost.items()},
        **books.tallies,
    }
    run.facts = {
        **books.lost,
        "model": plan.card.model_dump(mode="json"),
        "unknown_stains": plan.unknown_stains,
        "kernels": list(books.kernels),
        "workers": [asdict(worker) for worker in workers],
        "seconds_per_plate": books.seconds / len(plan.plates),
        "waiting_share": books.waiting_s / books.seconds,
    }
    run.write(plan.record)


def _write_anndata(plan: Plan, output: Output) -> None:
    path = anndata_path(output.path)
    if not plan.settings.anndata:
        warn_of_stale(path, output.identity)
    elif not is_written(path, output.identity, overwrite=plan.settings.overwrite):
        write_anndata(path, output.path)


def _summarise(plan: Plan, *, was_done: bool) -> EmbedSummary:
    """Say what is in the table, or in the first of several, without reading its features."""
    out = plan.outputs[0].path
    with pq.ParquetFile(out) as file:
        rows, names = file.metadata.num_rows, file.schema_arrow.names
    wells = pl.scan_parquet(out, glob=False).select(PLATE, WELL).unique().collect()
    about = read_metadata(out)
    return EmbedSummary(
        out=plan.settings.out,
        tables=tuple(output.path for output in plan.outputs),
        rows=rows,
        features=sum(not name.startswith(METADATA_PREFIX) for name in names),
        wells=sum(plate.wells for plate in plan.plates),
        embedded=wells.height,
        **lost_in([about]),
        tallies=about["tallies"],
        was_done=was_done,
    )
