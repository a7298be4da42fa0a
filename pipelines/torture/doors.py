"""Names and markup from strangers, through the doors behind ingest: stored plates, tables and study files."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.errors import ExitCode
from cellvim.store.checksums import CHECKSUMS_FILE
from cellvim.store.intensity import FIELDS_FILE
from cellvim.store.writer import MANIFEST_FILE
from pipelines.torture.calling import Ended, call
from pipelines.torture.escapes import Canary, names_of
from pipelines.torture.memory import limited, measured
from pipelines.torture.page import Row, Section
from pipelines.torture.soak_plates import make_plate, write_models
from pipelines.torture.stages import PLATES, write_table
from pipelines.torture.trial import MOST_BYTES, MOST_SECONDS
from pipelines.torture.yaml_bombs import yaml_bombs

FEWEST = 200
REFUSALS = (ExitCode.SOME_FAILED, ExitCode.USAGE, ExitCode.BAD_INPUT)
TITLE = "Other doors for XML and names"
BODY = """What the readers of images are given is tried in the section before this one. Names that lead to a canary, or to a place where
nothing may come to be, also stand in stored plates, which may come from a stranger as images do, in study files, and in tables of
profiles. Every spelling of the way out went through the real commands, called in one process. A command may refuse it
(exit code 3, or 1 for the problems that `verify` lists), or take it as a mere name; it must neither open the canary, nor
write outside of its output, nor end in a traceback.

| door | tried | refused | taken as a name | escapes | otherwise |
|---|---|---|---|---|---|
{rows}

Study and settings files are YAML, whose aliases may be nested as entities of XML are. {bombs} such files, of up to 10 to the 30 values
if they were written out, were each refused within {seconds:.1f} s of the processor and {megabytes:.0f} MB: {are_refused}.

{footer}
"""


@dataclass(frozen=True)
class Trial:
    """One name, or one file, through one door.

    Attributes:
        door: As the page calls it.
        text: What was given.
        end: Of the command.
        escape: What got out; None if nothing did.
        seconds: Of the processor.
        peak_bytes: Memory beyond what there was before.
    """

    door: str
    text: str
    end: Ended
    escape: str | None
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def is_refused(self) -> bool:
        return self.end.code in REFUSALS and self.end.is_told

    @property
    def failure(self) -> str | None:
        """What should not be; None if all is well."""
        if self.escape is not None:
            return self.escape
        if self.seconds > MOST_SECONDS or self.peak_bytes > MOST_BYTES:
            return f"took {self.seconds:.1f} s and {self.peak_bytes / 1e6:.0f} MB"
        return (
            None
            if self.is_refused or self.end.code == 0
            else f"exit {self.end.code}: {self.end.words[-300:]}"
        )


@dataclass(frozen=True)
class Bench:
    """What the doors are built of.

    Attributes:
        folder: Of everything.
        plate: A stored plate.
        source: The images that it was made from.
        model: For `embed`.
    """

    folder: Path
    plate: Path
    source: Path
    model: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def companion(self) -> Path:
        return self.plate.with_name(self.plate.name.replace(".ome.zarr", ".cellvim"))


@dataclass(frozen=True)
class Door:
    """Where a name can be put.

    Attributes:
        name: As the page calls it.
        start: The folder that the name is relative to.
        canary: What it leads to, below the folder of canaries.
        enter: Put it there, run the command, and put everything right again.
    """

    name: str
    start: Path
    canary: str
    enter: Callable[[str], Ended]


def torture_doors(out: Path, *, data: Path, step: int = 1) -> tuple[list[Trial], list[Trial]]:
    """Try every name at every door, or every `step`-th, and every bomb."""
    bench = _build(out, data)
    canary = Canary(bench.folder / "canary-outside")
    trials = [
        _try(door, way, bench, canary)
        for door in _doors(bench)
        for way in names_of(canary.folder / door.canary, door.start)[::step]
    ]
    trials += _try_tables(bench, canary, step)
    with limited(2 * MOST_BYTES):
        return trials, list(_try_bombs(bench))


def doors_section(trials: list[Trial], bombs: list[Trial], footer: str) -> Section:
    """Set what became of the names and bombs beside how, where and when they were tried."""
    rows = []
    for door in dict.fromkeys(trial.door for trial in trials):
        own = [trial for trial in trials if trial.door == door]
        bad = [trial for trial in own if trial.failure is not None]
        escapes = sum(trial.escape is not None for trial in own)
        refused, taken = sum(trial.is_refused for trial in own), sum(trial.end.code == 0 for trial in own)
        rows.append(f"| {door} | {len(own)} | {refused} | {taken} | {escapes} | {len(bad) - escapes} |")
    failures = [
        f"{one.door}, {one.text!r:.80}: {one.failure}" for one in (*trials, *bombs) if one.failure is not None
    ]
    escapes = sum(trial.escape is not None for trial in trials)
    are_refused = all(bomb.is_refused for bomb in bombs)
    failures += [f"{one.door} is not refused" for one in bombs if one.end.code == 0]
    body = BODY.format(
        rows="\n".join(rows),
        bombs=len(bombs),
        seconds=max(bomb.seconds for bomb in bombs),
        megabytes=max(bomb.peak_bytes for bomb in bombs) / 1e6,
        are_refused="yes" if are_refused else "no",
        footer=footer,
    )
    row = Row(
        "path traversal",
        f"{len(trials)} names in stored plates, study files and tables that lead out",
        f"{FEWEST}: 0 escapes",
        f"{escapes} escapes, {len(failures) - escapes} other ends",
        len(trials) >= FEWEST and not failures,
    )
    return Section(TITLE, body, failures, (row,))


def _build(out: Path, data: Path) -> Bench:
    shutil.rmtree(out, ignore_errors=True)
    folder = out.resolve()
    plate = make_plate(data, folder / "images", 0)
    ended = call(["--quiet", "ingest", str(plate.source), "--out", str(folder / "plates"), *plate.flags])
    if ended.code:
        raise RuntimeError(ended.words)
    (stored,) = (folder / "plates").glob("*.ome.zarr")
    model = write_models(folder / "models")["drawn"]
    for name in ("study", "tables"):
        (folder / name).mkdir()
    return Bench(folder, stored, plate.source, model)


def _doors(bench: Bench) -> list[Door]:
    parts = bench.out / "t.parquet.parts"
    embed = [
        "embed",
        str(bench.plate),
        "--model",
        str(bench.model),
        "--device",
        "cpu",
        "--out",
        str(bench.out / "t.parquet"),
    ]
    verify = ["verify", str(bench.plate)]

    def named(way: str) -> bytes:
        content = json.loads((bench.plate / "zarr.json").read_text())
        content["attributes"]["ome"]["plate"]["name"] = way
        return json.dumps(content).encode()

    def checksums(way: str) -> bytes:
        content = json.loads((bench.companion / CHECKSUMS_FILE).read_text())
        content["plate"][way] = "0" * 64
        return json.dumps(content).encode()

    def study(way: str, content: dict[str, Any]) -> Ended:
        file = bench.folder / "study/study.yaml"
        pl.DataFrame({"name": [way], "images": [str(bench.source)]}).write_csv(file.with_name("plates.csv"))
        file.write_text(
            json.dumps({"name": "x", "out": str(bench.out), "model": str(bench.model), **content})
        )
        return call(["study", "plan", str(file)])

    return [
        Door("name of a stored plate, `embed`", parts, "named", lambda way: _with(bench.plate / "zarr.json", named(way), embed)),
        Door("wells of a stored plate, `embed`", bench.plate, "plate.zarr", lambda way: _with_column(bench.companion / FIELDS_FILE, "Metadata_Well", f"{way}/B03", embed)),
        Door("checksums of a stored plate, `verify`", bench.plate, "canary.tif", lambda way: _with(bench.companion / CHECKSUMS_FILE, checksums(way), verify)),
        Door("sources of a stored plate, `verify --sources`", bench.source, "canary.tif", lambda way: _with_column(bench.companion / MANIFEST_FILE, "name", way, [*verify, "--sources", str(bench.source)])),
        Door("table of plates, `study plan`", bench.out, "named", lambda way: study(way, {"plates": "plates.csv"})),
        Door("list of plates, `study plan`", bench.out, "named", lambda way: study(way, {"plates": [{"name": way, "images": str(bench.source)}]})),
    ]  # fmt: skip


def _try(door: Door, way: str, bench: Bench, canary: Canary) -> Trial:
    canary.forget()
    end = door.enter(way)
    trial = Trial(door.name, way, end, canary.touched(bench.out))
    shutil.rmtree(bench.out, ignore_errors=True)
    return trial


def _try_tables(bench: Bench, canary: Canary, step: int) -> Iterator[Trial]:
    """Names of plates, and of labels, in a table of profiles."""
    path = write_table(bench.folder / "tables/wells.parquet")
    table = pl.read_parquet(path)
    tasks = ["--tasks", "activity", "--null-size", "200", "--bootstraps", "20"]
    for way in names_of(canary.folder / "named", bench.out)[:: 10 * step]:
        plates = {name: f"{way}{number}" for number, name in enumerate(PLATES)}
        table.with_columns(
            pl.col("Metadata_Plate").replace(plates), pl.lit(way).alias("Metadata_moa")
        ).write_parquet(path)
        canary.forget()
        end = call(["evaluate", str(path), "--out", str(bench.out), *tasks])
        yield Trial("plates and labels of a table, `evaluate`", way, end, canary.touched(bench.out))
        shutil.rmtree(bench.out, ignore_errors=True)


def _try_bombs(bench: Bench) -> Iterator[Trial]:
    file = bench.folder / "study/bomb.yaml"
    for name, content in yaml_bombs():
        file.write_text(content)
        for arguments in (
            ["study", "plan", str(file)],
            ["pretrain", "--out", str(bench.out), "--config", str(file)],
        ):
            seconds, peak, end = measured(partial(call, arguments))
            yield Trial(f"{name}, `{arguments[0]}`", name, end, None, seconds, peak)


def _with(path: Path, content: bytes, arguments: list[str]) -> Ended:
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        return call(arguments)
    finally:
        path.write_bytes(whole)


def _with_column(path: Path, column: str, text: str, arguments: list[str]) -> Ended:
    whole = path.read_bytes()
    table = pl.read_parquet(path).with_columns(pl.lit(text).alias(column))
    table.write_parquet(path)
    try:
        return call(arguments)
    finally:
        path.write_bytes(whole)
