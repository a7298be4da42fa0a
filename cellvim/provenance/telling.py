"""A chain as reports and metrics tell it: names and hashes only, the same wherever and however it was run."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from shlex import join
from typing import Any

from cellvim.errors import InputError
from cellvim.provenance.chain import Node
from cellvim.provenance.commands import Argument, Command, parse_command
from cellvim.provenance.from_settings import SETTINGS_FILE, command_from_settings
from cellvim.provenance.hashes import sha256_of_json
from cellvim.provenance.record import Artifact, RunRecord, recipe_sha256

MOST_STEPS = 200
"""Of one stage, told one by one; the others are counted, and hashed together."""
MOST_ARTIFACTS = 100
MOST_NAMED_PLATES = 3
_OUTPUT_NAMES = {"ingest": "plates", "pretrain": "run", "evaluate": "report", "import-checkpoint": "model"}
_PLATES = ("plate", "pixels")
_LEFT_OUT = frozenset({"--device", "--anndata"})
"""Options that say what works, not what comes out."""


def told(nodes: Sequence[Node], versions: Mapping[str, str]) -> dict[str, Any]:
    """Tell every run of a chain: command, hash of its settings, seed, versions, what it read and made.

    No path, time or machine is in it. Runs of one stage are in the order of what they made.

    Args:
        nodes: The chain, from the images on.
        versions: Of Python and libraries, as told once for all; a run names those that it had another version of.
    """
    # A plate that was copied has two records of the same, and is told once.
    steps = list(
        {sha256_of_json(step): step for step in (_step(node.record, versions) for node in nodes)}.values()
    )
    order = list(dict.fromkeys(step["stage"] for step in steps))
    steps.sort(key=lambda step: (order.index(step["stage"]), [made["name"] for made in step["makes"]]))
    shown: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for step in steps:
        counts[step["stage"]] += 1
        (shown if counts[step["stage"]] <= MOST_STEPS else rest).append(step)
    content: dict[str, Any] = {"steps": shown, "images": _images(nodes)}
    if rest:
        content |= {"steps_left_out": len(rest), "steps_left_out_sha256": sha256_of_json(rest)}
    return content


def command_of(record: RunRecord) -> Command | None:
    """A command that says what a run did, names instead of paths; None where there is none."""
    try:
        typed = parse_command(record.command)
    except InputError:
        # Called from Python, or a stranger's record: its settings still say what was done.
        typed = None
    if typed is not None and typed.subcommand == "demo":
        return typed.portable
    command = command_from_settings(record.stage, record.settings)
    return None if command is None else _renamed(command, record)


def _step(record: RunRecord, versions: Mapping[str, str]) -> dict[str, Any]:
    command = command_of(record)
    others = {name: found for name, found in sorted(record.packages.items()) if versions.get(name) != found}
    is_training = record.stage == "pretrain"
    # A training's file of settings and its pictures depend on where it was called from; its weights do not.
    reads = [each for each in record.reads if not is_training or each.kind in _PLATES]
    makes = [each for each in record.outputs if not is_training or each.name.endswith(".safetensors")]
    return {
        "stage": record.stage,
        "command": None if command is None else join(command.words),
        "settings_sha256": recipe_sha256(record.stage, record.settings),
        "seed": record.seed,
        "cellvim": record.cellvim,
        **({"versions": others} if others else {}),
        **_listed("reads", reads),
        **_listed("makes", makes),
    }


def _listed(key: str, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Names and hashes; of many, the first ones, their number, and a hash of all."""
    found = [_artifact(each) for each in artifacts]
    if len(found) <= MOST_ARTIFACTS:
        return {key: found}
    return {key: found[:MOST_ARTIFACTS], f"{key}_count": len(found), f"{key}_sha256": sha256_of_json(found)}


def _artifact(artifact: Artifact) -> dict[str, Any]:
    # What a model folder is called is nobody's business but of the machine it lies on.
    is_weights = PurePosixPath(artifact.path).name == "model.safetensors"
    content: dict[str, Any] = {
        "name": "model.safetensors" if is_weights else artifact.name,
        "kind": artifact.kind,
        "sha256": artifact.sha256,
    }
    return content | ({} if artifact.count is None else {"count": artifact.count})


def _images(nodes: Sequence[Node]) -> int | None:
    """Image files behind everything; None if no record tells."""
    counts = {
        artifact.sha256: artifact.count or 0
        for node in nodes
        for artifact in node.record.reads
        if artifact.kind == "images"
    }
    return sum(counts.values()) if counts else None


def _renamed(command: Command, record: RunRecord) -> Command:
    """Put names in the place of paths, such as do not depend on how folders were laid out."""
    given = [each for each in command.arguments if each.option and each.option not in _LEFT_OUT]
    positional = [Argument("", name, "input") for name in _inputs(command, record)]
    named = (Argument(each.option, _name(each, record), each.role) for each in given)
    return Command(command.subcommand, (*positional, *named), command.ranks, command.nodes)


def _inputs(command: Command, record: RunRecord) -> Iterator[str]:
    if record.stage == "ingest":
        yield from (_base(each.path) for each in record.reads if each.kind == "images")
        return
    if record.stage not in ("pretrain", "embed"):
        yield from (_base(each.value) for each in command.arguments if not each.option)
        return
    plates = list(dict.fromkeys(each.name for each in record.reads if each.kind in _PLATES))
    yield from plates if len(plates) <= MOST_NAMED_PLATES else ["plates"]


def _name(argument: Argument, record: RunRecord) -> str:
    if argument.option == "--out":
        return _OUTPUT_NAMES.get(record.stage, _base(argument.value))
    if argument.option == "--model":
        return "model.safetensors"
    if argument.option == "--config":
        return SETTINGS_FILE
    return argument.value if argument.role in ("value", "flag") else _base(argument.value)


def _base(path: str) -> str:
    return PurePosixPath(path).name or path
