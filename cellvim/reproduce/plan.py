"""The commands behind a result, in their order, and how their inputs stand now."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellvim.errors import InputError
from cellvim.provenance import Artifact, Node, follow, package_versions
from cellvim.provenance.commands import Argument, Command, parse_command
from cellvim.provenance.from_settings import command_from_settings
from cellvim.reproduce.checking import Finding, check


@dataclass
class Input:
    """One input of a step, how it stands now, and the step that made it (from 1; None if no step did)."""

    artifact: Artifact
    path: Path | str
    finding: Finding
    made_by: int | None = None
    note: str = ""


@dataclass
class Step:
    """One command with everything that it made: several plates, or with `demo` a whole chain.

    Args:
        command: Taken apart and checked; None where it is not one that may be run.
        refused: Why it may not be run.
        nodes: Its records.
    """

    number: int
    command: Command | None
    refused: str
    nodes: list[Node]
    inputs: list[Input] = field(default_factory=list)

    @property
    def cwd(self) -> Path:
        return Path(self.nodes[0].record.cwd or self.nodes[0].file.parent)

    @property
    def words(self) -> Sequence[str]:
        """The command, to be shown."""
        return self.command.words if self.command else self.nodes[-1].record.command

    @property
    def outputs(self) -> list[tuple[Artifact, Path | str]]:
        """What it made, with the places where that lay."""
        return [(output, node.located(output.path)) for node in self.nodes for output in node.record.outputs]

    @property
    def changed_records(self) -> list[Path]:
        """Records whose settings are not those that were hashed."""
        return [node.file for node in self.nodes if not node.record.is_untouched]


@dataclass
class Plan:
    """Steps, first ones first, and versions that differ from those installed."""

    start: Path
    steps: list[Step]
    versions: dict[str, tuple[str, str | None]]

    @property
    def hindrances(self) -> list[str]:
        """Why it cannot be run again: inputs that no step makes and that are missing or changed, and commands."""
        found = [
            f"step {step.number}: {each.artifact.name} is {each.finding.state}: {each.finding.detail}"
            for step in self.steps
            for each in step.inputs
            if each.made_by is None and each.finding.state in ("missing", "changed")
        ]
        return found + [f"step {step.number}: {step.refused}" for step in self.steps if step.refused]


def make_plan(start: Path, *, quick: bool = False, only_last: bool = False) -> Plan:
    """Follow a result back to the commands that made it, and look at every input.

    Args:
        start: A record, or an output with one.
        quick: Compare images and pixels by their sizes, without reading them.
        only_last: The last command alone; what it read counts as given.

    Raises:
        NotFoundError: No record there.
        InputError: A record is damaged, or the chain leads back to itself.
    """
    nodes = follow(start)
    groups = _grouped(nodes[-1:] if only_last else nodes)
    numbers = {id(node): number for number, group in enumerate(groups, start=1) for node in group}
    steps = []
    for number, group in enumerate(groups, start=1):
        command, refused = _command_of(group[-1])
        step = Step(number, command, refused, _without_copies(group))
        step.inputs = list(_inputs(step, numbers, quick=quick))
        steps.append(step)
    return Plan(nodes[-1].file, steps, _other_versions(nodes[-1]))


def _grouped(nodes: Sequence[Node]) -> list[list[Node]]:
    """Records of one command, each group where its last record is, so that makers come first."""
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in nodes:
        key = (node.record.command, node.record.cwd)
        groups[key] = [*groups.pop(key, []), node]
    return list(groups.values())


def _without_copies(nodes: Sequence[Node]) -> list[Node]:
    """Records of one run that lie at two places, as a plate was copied, count once."""
    return list({(node.record.started, node.record.outputs): node for node in reversed(nodes)}.values())[::-1]


def _command_of(node: Node) -> tuple[Command | None, str]:
    try:
        command = parse_command(node.record.command)
    except InputError as error:
        # Called from Python: what it did is in its settings.
        spelled = command_from_settings(node.record.stage, node.record.settings)
        if spelled is None or not node.record.is_untouched:
            return None, error.found
        command = spelled
    if node.record.cwd is None:
        return command, "its record is of an older version and does not say which folder its paths start from"
    if command.nodes > 1:
        return command, f"it ran on {command.nodes} machines at once: start it with your cluster's launcher"
    given = [argument for argument in command.arguments if not argument.option]
    if command.subcommand == "pretrain" and not given:
        # Plates that a file of settings names, relative to where it was read.
        named = node.record.settings.get("plates")
        plates = [Argument("", str(plate), "input") for plate in named] if isinstance(named, list) else []
        command = Command(command.subcommand, (*plates, *command.arguments), command.ranks, command.nodes)
    return command, ""


def _inputs(step: Step, numbers: dict[int, int], *, quick: bool) -> Iterator[Input]:
    seen: set[tuple[str, str]] = set()
    for node in step.nodes:
        if not node.record.reads:
            for name, sha256 in node.record.inputs.items():
                unknown = Finding(
                    "not checked", "the record is of an older version and does not say where it lay"
                )
                artifact = Artifact.model_construct(name=name, kind="file", path=name, sha256=sha256)
                yield Input(artifact, name, unknown)
        for link in node.links:
            maker = numbers.get(id(link.maker)) if link.maker else None
            key = (str(link.path), link.artifact.sha256)
            if key in seen or maker == step.number:
                continue
            seen.add(key)
            finding = check(link.artifact, link.path, node, quick=quick)
            yield Input(link.artifact, link.path, finding, maker, link.note)


def _other_versions(node: Node) -> dict[str, tuple[str, str | None]]:
    """Recorded and installed versions where they differ."""
    from cellvim import __version__
    from cellvim.provenance.surroundings import code_sha256

    code = node.record.code.get("sha256")
    recorded = {"cellvim": node.record.cellvim, **node.record.packages}
    installed: dict[str, str | None] = {"cellvim": __version__, **package_versions()}
    if code:
        recorded["source code"], installed["source code"] = code[:12], code_sha256()[:12]
    return {
        name: (version, installed.get(name))
        for name, version in recorded.items()
        if installed.get(name) != version
    }
