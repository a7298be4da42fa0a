"""Running a chain again in a new folder, and comparing what comes out with what was recorded."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import Any

from cellvim.atomic import locked, read_json, write_json
from cellvim.errors import CellvimError, InputError, InterruptedRunError, OutputExistsError, SomeFailedError
from cellvim.provenance import Artifact, Node, read_record, sha256_of_json
from cellvim.provenance.chain import absolute, is_there
from cellvim.provenance.record import decisive
from cellvim.reproduce.checking import hash_of
from cellvim.reproduce.places import Places
from cellvim.reproduce.plan import Plan, Step

MARK = "reproduce.json"
PASSED_ON = ("CELLVIM_KERNEL", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Recorded variables that are set again: none of them leads to a file or a program."""
_HARMLESS = re.compile(r"[A-Za-z0-9_.,-]{1,40}")
SOME_FAILED, INTERRUPTED = 1, 75


@dataclass(frozen=True)
class Compared:
    """One output that was made again.

    Args:
        name: Of the artifact.
        recorded: SHA-256 in the record.
        now: SHA-256 of what was made now; None if nothing was.
    """

    name: str
    recorded: str
    now: str | None

    @property
    def is_same(self) -> bool:
        return self.recorded == self.now


@dataclass(frozen=True)
class Outcome:
    """What came of one step.

    Args:
        number: Of the step.
        stage: Its subcommand.
        compared: Its outputs.
        settings: Settings that differ from the recorded ones, without places.
        was_there: An earlier call had made all of it.
    """

    number: int
    stage: str
    compared: tuple[Compared, ...]
    settings: tuple[str, ...]
    was_there: bool

    @property
    def is_same(self) -> bool:
        return bool(self.compared) and all(each.is_same for each in self.compared) and not self.settings


def run_plan(plan: Plan, out: Path, *, tell: Callable[[str], object]) -> list[Outcome]:
    """Run every step in a new folder; what an earlier call has made there is kept.

    Args:
        plan: Nothing of it may be missing or changed.
        out: New folder, or that of an earlier call.
        tell: Takes a line before each step: the command.

    Raises:
        InputError: An input is missing or changed, or a command may not be run.
        OutputExistsError: The folder holds something else.
        SomeFailedError: A command failed.
        InterruptedRunError: A command was stopped and can go on.
    """
    if plan.hindrances:
        more = f" (and {len(plan.hindrances) - 1} more)" if len(plan.hindrances) > 1 else ""
        found = f"the result cannot be made again: {plan.hindrances[0]}{more}"
        raise InputError(found, hint="the lines above say which inputs; bring them back, or try --only-last")
    places = Places.of(plan.steps, out)
    commands = [places.command(step) for step in plan.steps]
    _refuse_other_content(plan, out)
    with locked(out):
        write_json(out / MARK, {"identity": _identity(plan)})
        return [_run(step, words, places, tell) for step, words in zip(plan.steps, commands, strict=True)]


def _identity(plan: Plan) -> str:
    return sha256_of_json(
        [[output.sha256 for output, _ in step.outputs] + list(step.words) for step in plan.steps]
    )


def _refuse_other_content(plan: Plan, out: Path) -> None:
    """Write nothing into a folder that an earlier call for the same chain has not made."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    mark = out / MARK
    try:
        is_ours = mark.is_file() and read_json(mark).get("identity") == _identity(plan)
    except (OSError, ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise OutputExistsError(
            out, why="is no folder of an earlier call for this chain", hint="choose a new --out"
        )


def _run(step: Step, words: list[str], places: Places, tell: Callable[[str], object]) -> Outcome:
    stage = words[0]
    before = _compared(step, places)
    if before and all(each.is_same for each in before):
        return Outcome(step.number, stage, before, tuple(_settings(step, places)), was_there=True)
    tell(f"step {step.number}: {join(['cellvim', *words])}")
    _call(step, words, places.out)
    return Outcome(
        step.number, stage, _compared(step, places), tuple(_settings(step, places)), was_there=False
    )


def _call(step: Step, words: list[str], out: Path) -> None:
    ranks = step.command.ranks if step.command else 0
    launcher = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"] if ranks else []
    )
    environment = {**os.environ, **_environment(step.nodes[-1].record.environment)}
    # Results of the commands are not results of this one: they go where the log goes.
    done = subprocess.run(  # noqa: S603 - our own interpreter and module, arguments taken apart and checked
        [sys.executable, "-m", *launcher, "cellvim", *words],
        cwd=out,
        env=environment,
        stdout=sys.stderr.fileno(),
        check=False,
    )
    if done.returncode == INTERRUPTED:
        found = f"step {step.number} was stopped"
        raise InterruptedRunError(found, hint="run the same command again to resume")
    if done.returncode not in (0, SOME_FAILED):
        found = f"step {step.number} ended with exit code {done.returncode}"
        raise SomeFailedError(found, hint="its last lines say why; the same command again goes on from here")


def _environment(recorded: Mapping[str, str]) -> dict[str, str]:
    return {
        name: recorded[name] for name in PASSED_ON if name in recorded and _HARMLESS.fullmatch(recorded[name])
    }


def _compared(step: Step, places: Places) -> tuple[Compared, ...]:
    return tuple(
        Compared(artifact.name, artifact.sha256, _hash(artifact, _new_place(artifact.path, node, places)))
        for node in step.nodes
        for artifact in node.record.outputs
    )


def _new_place(path: str, node: Node, places: Places) -> Path | None:
    """Where the step writes now what it wrote to a path before; None if that was no place of its outputs."""
    old = absolute(path, node.record.cwd or node.file.parent)
    return places.moved(old) if old.is_relative_to(places.root) else None


def _hash(artifact: Artifact, path: Path | None) -> str | None:
    if path is None or not is_there(path):
        return None
    try:
        return hash_of(artifact, path)
    except (CellvimError, OSError, ValueError, LookupError, TypeError):
        # Unfinished, which is not the same.
        return None


def _settings(step: Step, places: Places) -> Iterator[str]:
    """Name settings that are not those that were recorded, such as of a changed file of settings."""
    for node in step.nodes:
        path = _new_place(node.record.record, node, places) if node.record.record else None
        if path is None or not path.is_file():
            continue
        old = decisive(node.record.stage, node.record.settings)
        new = decisive(node.record.stage, read_record(path).settings)
        for key in sorted(old):
            if old[key] != new.get(key):
                yield f"{key} is {_shown(new.get(key))}, recorded {_shown(old[key])}"


def _shown(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
