"""Do all jobs of the study in a few processes, and write the page of what is finished."""

import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cellvim.atomic import write_text
from pipelines.model_study.page import results_page
from pipelines.model_study.picture import draw_differences
from pipelines.model_study.results import StudyResults
from pipelines.model_study.run import Study, finish_baseline, finish_variant, make_plates
from pipelines.model_study.variants import DEFAULT, UNTRAINED, DataName, variants_of

logger = logging.getLogger(__name__)

BASELINE = "baseline"


@dataclass(frozen=True)
class Job:
    """One thing to finish: the plates of a data set (no variant), its baselines, or one training."""

    data: DataName
    seed: int
    variant: str | None = None


def run_study(study: Study, *, workers: int, only: Sequence[str] = ()) -> None:
    """Finish all plates, then all runs.

    Each worker computes with one thread, so that no number depends on how many workers there are.

    Args:
        study: What to do, and where.
        workers: Processes at a time.
        only: Variants to run; all if empty.
    """
    plates = [
        Job(data, seed) for data in study.data for seed in study.seeds[: 1 if data == "bbbc013" else None]
    ]
    runs = [job for job in list_runs(study) if not only or job.variant in only]
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_compute_alone) as pool:
            for jobs in (plates, runs):
                _finish_all(pool, study, jobs)
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads


def list_runs(study: Study) -> list[Job]:
    """All runs: seed by seed, the default and what it is compared with first, so that a study cut short is of use."""
    jobs = [Job(data, seed, name) for data, seed, name in _runs(study)]
    order = {DEFAULT: 0, UNTRAINED: 1, BASELINE: 1}
    return sorted(jobs, key=lambda job: (study.seeds.index(job.seed), order.get(job.variant or "", 2)))


def write_page(study: Study, docs: Path) -> None:
    """Write the page from the runs that are finished, and its pictures into `images/` beside it."""
    results, confirmed = StudyResults.read(study), StudyResults.read(study.confirmation)
    pictures = {}
    for data in study.data:
        pictures[data] = docs.parent / "images" / f"{docs.stem}_{data}.png"
        draw_differences(results, data, pictures[data])
    links = {data: path.relative_to(docs.parent).as_posix() for data, path in pictures.items()}
    write_text(docs, results_page(study, results, links, confirmed))


def finish(study: Study, job: Job) -> Path | None:
    """Do one job; called in a worker."""
    if job.variant is None:
        make_plates(study, job.data, job.seed)
        return None
    if job.variant == BASELINE:
        return finish_baseline(study, job.data, job.seed)
    variant = next(variant for variant in variants_of(job.data) if variant.name == job.variant)
    return finish_variant(study, job.data, variant, job.seed)


def _runs(study: Study) -> Iterator[tuple[DataName, int, str]]:
    for data in study.data:
        for seed in study.seeds:
            for variant in variants_of(data):
                yield data, seed, variant.name
            # Neither the plate of BBBC013 nor these baselines know of a seed.
            if data == "synthetic" or seed == study.seeds[0]:
                yield data, seed, BASELINE


def _finish_all(pool: ProcessPoolExecutor, study: Study, jobs: Sequence[Job]) -> None:
    started = time.perf_counter()
    futures = {pool.submit(finish, study, job): job for job in jobs}
    try:
        for number, future in enumerate(as_completed(futures), start=1):
            future.result()
            job, minutes = futures[future], (time.perf_counter() - started) / 60
            what = job.variant or "plates"
            logger.info(
                "%d of %d: %s, %s, seed %d (%.1f min)", number, len(jobs), job.data, what, job.seed, minutes
            )
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _compute_alone() -> None:
    import torch

    torch.set_num_threads(1)
