"""Thousands of damaged plates and some hundred hostile ones, each ingested for real and judged by its bytes."""

import json
import logging
import os
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.torture.escapes import ESCAPE
from pipelines.torture.hostile import BOMB, XML_BOMB
from pipelines.torture.judge import BROKEN, RECORDED, REFUSED, SAME, TOLD
from pipelines.torture.page import Row, Section
from pipelines.torture.trial import MOST_BYTES, MOST_SECONDS, Verdict

logger = logging.getLogger(__name__)

WORKERS = 2
PATIENCE_S = 60.0
"""A process that says nothing for so long is taken to hang."""
TRIALS_OF_A_PROCESS = 500
"""Then it is replaced, so that what one trial leaves in memory does not hide what another takes."""
VERDICTS = (REFUSED, SAME, RECORDED, TOLD, BROKEN)
FEWEST_IMAGES, FEWEST_BOMBS, FEWEST_WAYS = 5000, 10, 200
BODY = """{mutants} damaged copies of small real plates and {attacks} hostile ones were ingested for real: a dry run, then an ingest,
with `--on-missing` stop, skip-field or fill. Damage is to one file of a plate: bits flipped, runs of bytes overwritten,
zeroed, cut out, repeated or swapped, truncation; tags of TIFFs set to extremes, chains of pages looped; texts and cells
replaced by hostile ones, lines shuffled, digits changed, other encodings, entities, deep nesting. The judge reads what
was written with zarr, json and polars alone. A mutant must be

- **refused** with an error and a hint that are about the input, and no finished plate, or
- give the **same pixels**, metadata and plate map, to the byte, as the undamaged plate, or
- be **altered, recorded**: a changed pixel in an uncompressed TIFF or a changed digit of an index is still a valid file,
  but the sha256 that the manifest or `run.json` records for it is that of the damaged file, or
- be **altered, told**: the summary names what was skipped, filled or odd.

Anything else is **broken**: a traceback, more than {seconds:.0f} s of the processor (or a minute by the clock) or {memory:.0f} GiB, a wrong exit code, or a silent difference.

| plate, damaged file | mutants | {heads} | processor, s | most memory, MB |
|---|---|{lines}|---|---|
{mutant_rows}

Hostile files: TIFFs that claim gigapixels or swell more than ten thousandfold, each to be dealt with in a second of the processor; eleven
XML bombs for every kind of XML, whose entities must not appear anywhere, nor be fetched; and names in indexes, tables
and plate maps that lead to a canary outside of the source, which must never be opened nor have its pixels in a store,
or to a place outside of the output, where nothing may come to be.

| attack | tried | {heads} | processor, s | most memory, MB |
|---|---|{lines}|---|---|
{attack_rows}

{footer}
"""


def torture_mutants(
    data: Path, out: Path, *, mutants: int, seed: int, attacks: int | None = None, workers: int = WORKERS
) -> list[Verdict]:
    """Try `mutants` damaged plates and all hostile ones, or every n-th so that `attacks` remain.

    What breaks cellvim is kept below `out/broken`, with the settings it takes; all verdicts are in `out/verdicts.jsonl`.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    found: list[Verdict] = []
    with tempfile.TemporaryDirectory(dir=_fast_folder()) as scratch:
        drivers = [_Driver(data, Path(scratch) / str(n), out, seed) for n in range(workers)]
        total = drivers[0].attacks
        step = 1 if attacks is None else max(1, total // attacks)
        for line in [
            *(f"mutant {n}" for n in range(mutants)),
            *(f"attack {n}" for n in range(0, total, step)),
        ]:
            jobs.put(line)
        threads = [threading.Thread(target=driver.drive, args=(jobs, found)) for driver in drivers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found.sort(key=lambda verdict: (verdict.kind in (BOMB, XML_BOMB, ESCAPE), verdict.number))
    (out / "verdicts.jsonl").write_text("".join(json.dumps(vars(verdict)) + "\n" for verdict in found))
    return found


def mutants_section(found: Sequence[Verdict], footer: str) -> Section:
    """Set the verdicts beside how, where and when they were reached."""
    hostile = [verdict for verdict in found if verdict.kind in (BOMB, XML_BOMB, ESCAPE)]
    damaged = [verdict for verdict in found if verdict.kind not in (BOMB, XML_BOMB, ESCAPE)]
    body = BODY.format(
        mutants=f"{len(damaged):,}",
        attacks=len(hostile),
        seconds=MOST_SECONDS,
        memory=MOST_BYTES / 2**30,
        heads=" | ".join(VERDICTS),
        lines="|".join(["---"] * len(VERDICTS)),
        mutant_rows=_rows(damaged, lambda verdict: f"{verdict.victim}, {verdict.kind}"),
        attack_rows=_rows(hostile, lambda verdict: f"{verdict.kind}, {verdict.victim}"),
        footer=footer,
    )
    failures = [_line(verdict) for verdict in found if _is_bad(verdict)]
    return Section("Damaged and hostile files", body, failures, figure_rows(found))


def figure_rows(found: Sequence[Verdict]) -> tuple[Row, ...]:
    """Hold the verdicts against the figures that were asked for."""
    bombs, xml, ways = ([one for one in found if one.kind == kind] for kind in (BOMB, XML_BOMB, ESCAPE))
    mutants = [one for one in found if one.kind not in (BOMB, XML_BOMB, ESCAPE)]
    images = sum(one.kind == "tiff" for one in mutants)
    refused = sum(one.verdict in (REFUSED, TOLD) for one in bombs)
    slowest, most = _most(mutants)
    return (
        Row(
            "corrupt TIFF",
            f"{images:,} mutants of real TIFFs, {len(mutants) - images:,} of indexes, tables and zarr files, ingested",
            f"{FEWEST_IMAGES:,} mutants: 0 tracebacks, < 1 GiB, < 5 s of the processor; refused, the same pixels, or reported",
            f"{sum(map(_is_bad, mutants))} otherwise; at most {slowest:.1f} s and {most / 1e6:.0f} MB",
            images >= FEWEST_IMAGES and not any(map(_is_bad, mutants)),
        ),
        Row(
            "decompression bomb",
            f"{len(bombs)} TIFFs that claim gigapixels or swell more than 10,000-fold, ingested",
            "refused in < 1 s of the processor: dry run and ingest, without the start of Python",
            f"{refused} refused, the slowest in {_most(bombs)[0]:.2f} s",
            refused == len(bombs) > 0 and not any(map(_is_bad, bombs)),
        ),
        Row(
            "XML bomb",
            f"{len(xml)} bombs in every kind of XML that is read",
            f"{FEWEST_BOMBS}: 0 expansions",
            f"{sum(map(_is_bad, xml))} expansions",
            len(xml) >= FEWEST_BOMBS and not any(map(_is_bad, xml)),
        ),
        Row(
            "path traversal",
            f"{len(ways)} names in images' indexes, tables and plate maps that lead out of the source or the output",
            f"{FEWEST_WAYS}: 0 escapes",
            f"{sum(map(_is_bad, ways))} escapes",
            len(ways) >= FEWEST_WAYS and not any(map(_is_bad, ways)),
        ),
    )


class _Driver:
    """Starts a process of trials, hands it one after another, and replaces it when it dies, hangs or grows old."""

    def __init__(self, data: Path, scratch: Path, out: Path, seed: int) -> None:
        self._command = [
            sys.executable, "-m", "pipelines.torture.trial", "--data", str(data), "--scratch", str(scratch),
            "--kept", str(out / "broken"), "--seed", str(seed),
        ]  # fmt: skip
        self._log = out / f"trials-{scratch.name}.log"
        self.attacks = 0
        self._start()

    def drive(self, jobs: queue.SimpleQueue[str], found: list[Verdict]) -> None:
        trials = 0
        while True:
            try:
                job = jobs.get_nowait()
            except queue.Empty:
                break
            if trials == TRIALS_OF_A_PROCESS:
                self._stop()
                self._start()
                trials = 0
            verdict = self._try(job)
            if verdict is None:
                kind, number = job.split()
                self._stop()
                reason = f"the process hung or died, exit {self._process.returncode}"
                verdict = Verdict(int(number), "?", kind, "?", BROKEN, reason, PATIENCE_S, 0)
                self._start()
                trials = 0
            found.append(verdict)
            trials += 1
            if len(found) % 500 == 0:
                logger.info("%d trials, %d broken", len(found), sum(map(_is_bad, found)))
        self._stop()

    def _try(self, job: str) -> Verdict | None:
        assert self._process.stdin is not None  # noqa: S101 - asked for below
        try:
            self._process.stdin.write(f"{job}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self._answer()
        return None if answer is None else Verdict(**answer)

    def _answer(self) -> dict[str, Any] | None:
        assert self._process.stdout is not None  # noqa: S101 - asked for below
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else b""
        return json.loads(line) if line else None

    def _start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                # One arena for all threads: what they free is seen to be free.
                env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0,
            )  # fmt: skip
        ready = self._answer()
        if ready is None:
            message = f"trials do not start: {self._log.read_text()[-2000:]}"
            raise RuntimeError(message)
        self.attacks = int(ready["reason"])

    def _stop(self) -> None:
        self._process.kill()
        # On leaving, its pipes are closed and its end is waited for.
        with self._process:
            pass


def _rows(found: Sequence[Verdict], name: Any) -> str:
    groups: dict[str, list[Verdict]] = {}
    for verdict in found:
        groups.setdefault(name(verdict), []).append(verdict)
    groups = dict(sorted(groups.items())) | {"all": list(found)}
    return "\n".join(_row(group, verdicts) for group, verdicts in groups.items() if verdicts)


def _row(group: str, found: Sequence[Verdict]) -> str:
    count = Counter(verdict.verdict for verdict in found)
    cells = [group, len(found), *(count[verdict] for verdict in VERDICTS)]
    slowest, most = _most(found)
    return f"| {' | '.join(map(str, cells))} | {slowest:.1f} | {most / 1e6:.0f} |"


def _most(found: Sequence[Verdict]) -> tuple[float, int]:
    """Seconds of the slowest, and bytes of the largest."""
    return max((one.seconds for one in found), default=0), max((one.peak_bytes for one in found), default=0)


def _is_bad(verdict: Verdict) -> bool:
    return verdict.verdict == BROKEN


def _line(verdict: Verdict) -> str:
    return f"{verdict.kind} {verdict.number}, {verdict.victim}: {verdict.damage}: {verdict.reason}"


def _fast_folder() -> Path | None:
    """Memory, where the system offers it: trials write much, and nothing of it is to last."""
    memory = Path("/dev/shm")  # noqa: S108
    return memory if os.access(memory, os.W_OK) else None
