"""Where a step that is run again writes, and where it reads: below a new folder, or the untouched originals."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path

from cellvim.errors import InputError
from cellvim.provenance.chain import absolute, is_there
from cellvim.provenance.commands import Argument, Command, Role
from cellvim.reproduce.plan import Step


@dataclass(frozen=True)
class Places:
    """The old outputs, and the folder that takes their place.

    Args:
        out: New folder.
        root: Deepest folder that held all old outputs, and every folder of them that a later step reads.
    """

    out: Path
    root: Path

    @classmethod
    def of(cls, steps: Sequence[Step], out: Path) -> "Places":
        """Lay the outputs of some steps out below a new folder, as they lay before.

        Raises:
            InputError: A step writes to an object store, or `out` lies where the originals are.
        """
        made = tuple(dict.fromkeys(path for step in steps for path in _named(step, "output")))
        around = {
            path
            for step in steps
            for path in _named(step, "input")
            if any(each.is_relative_to(path) for each in made)
        }
        out = absolute(out, Path.cwd())
        for path in made:
            if out == path or out.is_relative_to(path) or path.is_relative_to(out):
                found = f"--out {out} lies where the results are that are to be compared ({path})"
                raise InputError(found, hint="choose a new folder beside them")
        root = Path(commonpath([*around, *(path.parent for path in made)])) if made else out
        return cls(out, root)

    def moved(self, path: Path) -> Path:
        """The new place of an old output, or of a folder around old outputs."""
        new = absolute(path.relative_to(self.root), self.out)
        assert new.is_relative_to(self.out), "the root holds all outputs"  # noqa: S101
        return new

    def command(self, step: Step) -> list[str]:
        """What is run: outputs below the new folder, inputs from there if a step makes them, else the originals.

        Raises:
            InputError: An input holds both what steps make and what none makes.
        """
        assert step.command is not None, "refused steps are not run"  # noqa: S101
        arguments = tuple(self._placed(argument, step) for argument in step.command.arguments)
        return Command(step.command.subcommand, arguments).own_words

    def _placed(self, argument: Argument, step: Step) -> Argument:
        if argument.role == "output":
            path = self.moved(absolute(argument.value, step.cwd))
        elif argument.role == "input" and "://" not in argument.value:
            path = self._input(absolute(argument.value, step.cwd), step)
        else:
            return argument
        return Argument(argument.option, str(path), argument.role)

    def _input(self, path: Path, step: Step) -> Path:
        """The copy that a step of the plan makes; else where the original lies now."""
        below = [each for each in step.inputs if absolute(each.artifact.path, step.cwd).is_relative_to(path)]
        made = [each for each in below if each.made_by is not None]
        if made and len(made) < len(below):
            others = [each.artifact.name for each in below if each.made_by is None]
            found = f"step {step.number} reads {path}, of which {others[0]} was made by no step of the chain"
            raise InputError(found, hint="run the last step alone with --only-last")
        if made:
            return self.moved(path)
        # Of a folder that has moved with its record since.
        recorded = [node.located(str(path)) for node in step.nodes]
        return next((place for place in recorded if isinstance(place, Path) and is_there(place)), path)


def _named(step: Step, role: Role) -> list[Path]:
    """Places that the command names as its outputs, or as its inputs on this machine.

    Raises:
        InputError: An output is in an object store.
    """
    arguments = step.command.arguments if step.command else ()
    names = [argument.value for argument in arguments if argument.role == role]
    if role == "output" and any("://" in name for name in names):
        found = f"step {step.number} writes to an object store, which --run does not copy"
        raise InputError(found, hint="run it by hand, with a folder of this machine as --out")
    return [absolute(name, step.cwd) for name in names if "://" not in name]
