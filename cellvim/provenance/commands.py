"""A recorded command, taken apart: which words are paths, which may be run again, and how it is told elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from cellvim.errors import InputError

Role = Literal["input", "output", "value", "flag"]

SUBCOMMANDS = ("ingest", "pretrain", "embed", "normalize", "evaluate", "import-checkpoint", "demo")
"""Commands that write a record. No other is ever run from one."""
OUTPUT_OPTIONS = frozenset({"--out", "--save"})
INPUT_OPTIONS = frozenset(
    {"--platemap", "--images", "--config", "--model", "--masks", "--relations", "--fitted", "--left-out"}
)
FLAGS = frozenset(
    {
        "--dry-run", "--each-layer", "--intensity", "--anndata", "--consensus", "--different-position", "--ema",
        "--no-ema", "--overwrite", "--json",
    }
)  # fmt: skip
VALUE_OPTIONS = frozenset(
    {
        "--pattern", "--plate", "--source", "--channels", "--drop-channels", "--on-missing", "--z", "--timepoint",
        "--codec", "--illumination", "--illumination-method", "--workers", "--objective", "--preset", "--backbone",
        "--steps", "--batch-size", "--accumulate", "--precision", "--device", "--seed", "--level", "--pool",
        "--layers", "--tile-px", "--overlap", "--min-content", "--object-background", "--readers", "--perturbation",
        "--control", "--label", "--label-separator", "--dose", "--batch", "--normalize", "--average", "--tasks",
        "--null-size", "--bootstraps", "--title", "--scan-order", "--scan-path", "--mask-ratio", "--image-px",
    }
)  # fmt: skip
TAKEN_APART = {("evaluate", "--consensus"): "value"}
"""Options that mean another thing in one command."""
DROPPED = frozenset({"--overwrite", "--json", "--dry-run"})
"""Say how loud or how bold to be, not what to make; nothing that is run again may overwrite."""
LOUDNESS = frozenset({"-q", "--quiet", "-v", "--verbose"})
HINT = "only commands of cellvim that write a record are run again"


@dataclass(frozen=True)
class Argument:
    """One positional word, or an option with its value.

    Args:
        option: Such as ``--out``; empty for a positional word, which is always an input.
        value: Empty for a flag.
    """

    option: str
    value: str
    role: Role

    @property
    def words(self) -> tuple[str, ...]:
        if self.role == "flag":
            return (self.option,)
        if not self.option:
            # A name that looks like an option is none.
            return (f"./{self.value}" if self.value.startswith("-") else self.value,)
        return (f"{self.option}={self.value}",) if self.value.startswith("-") else (self.option, self.value)


@dataclass(frozen=True)
class Command:
    """One call of cellvim.

    Args:
        subcommand: Such as ``embed``.
        arguments: In their order, without those that only say how loud or how bold to be.
        ranks: Processes that torchrun started on each node; 0 without torchrun.
        nodes: Machines that torchrun ran on.
    """

    subcommand: str
    arguments: tuple[Argument, ...]
    ranks: int = 0
    nodes: int = 1

    @property
    def own_words(self) -> list[str]:
        """Everything behind the program."""
        return [self.subcommand, *(word for argument in self.arguments for word in argument.words)]

    @property
    def words(self) -> list[str]:
        if not self.ranks:
            return ["cellvim", *self.own_words]
        where = ["--standalone"] if self.nodes == 1 else ["--nnodes", str(self.nodes)]
        return ["torchrun", *where, "--nproc-per-node", str(self.ranks), "-m", "cellvim", *self.own_words]

    @property
    def portable(self) -> "Command":
        """The same with names instead of paths: equal for equal runs in different folders."""
        named = (
            argument
            if argument.role in ("value", "flag")
            else Argument(argument.option, _name_of(argument.value), argument.role)
            for argument in self.arguments
        )
        kept = tuple(each for each in named if (self.subcommand, each.option) != ("demo", "--out"))
        return Command(self.subcommand, kept, self.ranks, self.nodes)


def parse_command(words: Sequence[str]) -> Command:
    """Take a recorded command apart.

    Raises:
        InputError: It is of another program, of a command that writes no record, or it holds unknown options.
    """
    arguments, ranks, nodes = _without_program(list(words))
    own = [word for word in arguments if word not in LOUDNESS]
    if not own or own[0] not in SUBCOMMANDS:
        found = f"the record's command is {_shown(words)}, which writes no record"
        raise InputError(found, hint=HINT)
    given = tuple(_arguments(own[0], own[1:]))
    if own[0] == "demo" and not any(argument.option == "--out" for argument in given):
        given = (*given, Argument("--out", "demo", "output"))
    return Command(own[0], given, ranks, nodes)


def role_of(subcommand: str, option: str) -> Role | None:
    """What an option takes; None for one that no command has."""
    if (subcommand, option) in TAKEN_APART:
        return "value"
    roles: dict[Role, frozenset[str]] = {
        "output": OUTPUT_OPTIONS,
        "input": INPUT_OPTIONS,
        "flag": FLAGS,
        "value": VALUE_OPTIONS,
    }
    return next((role for role, options in roles.items() if option in options), None)


def _without_program(words: list[str]) -> tuple[list[str], int, int]:
    """Arguments, ranks per node and nodes.

    Raises:
        InputError: Another program.
    """
    program = PurePosixPath(words[0]).name if words else ""
    if program in ("cellvim", "__main__.py"):  # the latter is how older records spell `python -m cellvim`
        return words[1:], 0, 1
    if program.startswith("python") and words[1:3] == ["-m", "cellvim"]:
        return words[3:], 0, 1
    if program == "torchrun" and "cellvim" in words:
        place = words.index("cellvim")
        before = [word for word in words[1:place] if word != "--standalone"]
        if before[-1:] == ["-m"] and len(before) % 2:
            numbers = dict(zip(before[:-1:2], before[1::2], strict=True))
            if set(numbers) <= {"--nproc-per-node", "--nnodes"} and all(map(str.isdecimal, numbers.values())):
                ranks = max(1, int(numbers.get("--nproc-per-node", 1)))
                return words[place + 1 :], ranks, max(1, int(numbers.get("--nnodes", 1)))
    found = f"the record's command is {_shown(words)}, and not cellvim"
    raise InputError(found, hint=HINT)


def _arguments(subcommand: str, words: list[str]) -> Iterator[Argument]:
    """Take options and positional words in turn.

    Raises:
        InputError: An unknown option, or one without its value.
    """
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from (Argument("", each, "input") for each in rest)
        elif not word.startswith("-") or word == "-":
            yield Argument("", word, "input")
        else:
            option, has_value, value = word.partition("=")
            role = role_of(subcommand, option)
            if role is None or (role == "flag" and has_value):
                found = f"the record's command has an option that cellvim does not know: {_shown([word])}"
                raise InputError(found, hint=HINT)
            if role != "flag" and not has_value:
                value = _next(rest, option)
            if option not in DROPPED:
                yield Argument(option, value, role)


def _next(rest: Iterator[str], option: str) -> str:
    value = next(rest, None)
    if value is None:
        found = f"the record's command ends behind {option}, which takes a value"
        raise InputError(found, hint=HINT)
    return value


def _name_of(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _shown(words: Sequence[str], most: int = 80) -> str:
    text = " ".join(words)
    return repr(text if len(text) <= most else f"{text[: most - 3]}...")
