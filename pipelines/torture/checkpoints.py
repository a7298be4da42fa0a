"""Checkpoints that run code when a careless reader opens them, through every door that takes a file of weights."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import ExitCode
from pipelines.torture.calling import Ended, call
from pipelines.torture.page import Row, Section
from pipelines.torture.pickles import PICKLES
from pipelines.torture.stages import write_plate

FEWEST = 10
BODY = """{pickles} checkpoints were made that touch a file, the canary, when Python or torch unpickles them: calls of `os.system`,
`eval`, `exec`, `Popen`, chains of `getattr`, states that run code when they are set, old formats. Read by
`torch.load(weights_only=False)` or by `pickle`, {singing} of them do. Each went through every door that takes a file of weights, with
torch as it is and with torch told by its environment to trust all files. Every time the command must end with exit
code 3, one error and one hint, no traceback, no output and no canary.

| door | pickles | canaries | exit code 3 | otherwise |
|---|---|---|---|---|
{rows}

{footer}
"""
# A careless reader, in a process of its own: what it falls for is a danger indeed.
_CARELESS = """
import pickle, sys, torch
from pathlib import Path
for path in sys.argv[1:]:
    for read in (lambda: torch.load(path, weights_only=False), lambda: pickle.loads(Path(path).read_bytes())):
        try:
            read()
        except BaseException:
            pass
"""


@dataclass(frozen=True)
class Visit:
    """One pickle through one door.

    Attributes:
        door: As the page calls it.
        pickle: Name of the attack.
        has_sung: The canary was touched.
        end: Of the command.
        has_output: Something was written.
    """

    door: str
    pickle: str
    has_sung: bool
    end: Ended
    has_output: bool

    @property
    def failure(self) -> str | None:
        """What should not be; None if all is well."""
        if self.has_sung or self.has_output or self.end.code != ExitCode.BAD_INPUT or not self.end.is_told:
            said = self.end.words[-300:]
            return f"exit {self.end.code}, canary {self.has_sung}, output {self.has_output}: {said}"
        return None


Door = Callable[[Path, Path], list[str]]


def torture_checkpoints(
    out: Path, *, names: tuple[str, ...] = tuple(PICKLES), is_forced: tuple[bool, ...] = (False, True)
) -> tuple[int, list[Visit]]:
    """Bring every pickle through every door; also count those that a careless reader falls for."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "pickles").mkdir(parents=True)
    plate = write_plate(out / "plates", "P1")
    for name in names:
        PICKLES[name](_path(out, name), _canary(out, name))
    visits = []
    for forced in is_forced:
        environment = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"} if forced else {}
        for door, command in _doors(plate).items():
            for name in names:
                end = call(command(_path(out, name), out / "output"), environment)
                visits.append(_judge(out, door, name, end))
    return _count_singing(out, names), visits


def checkpoints_section(singing: int, visits: list[Visit], footer: str) -> Section:
    """Set what became of the pickles beside how, where and when they were tried."""
    rows = []
    for door in dict.fromkeys(visit.door for visit in visits):
        own = [visit for visit in visits if visit.door == door]
        refused = sum(visit.end.code == ExitCode.BAD_INPUT for visit in own)
        sung, bad = sum(visit.has_sung for visit in own), sum(visit.failure is not None for visit in own)
        rows.append(f"| {door} | {len(own)} | {sung} | {refused} | {bad} |")
    pickles = len({visit.pickle for visit in visits})
    sung = sum(visit.has_sung for visit in visits)
    failures = [f"{one.door}, {one.pickle}: {one.failure}" for one in visits if one.failure is not None]
    row = Row(
        "malicious checkpoint",
        f"{pickles} pickles with a canary, {singing} of which sing to a careless reader, through {len(rows)} doors",
        f"{FEWEST} pickles: 0 canaries, exit code 3",
        f"{sung} canaries in {len(visits)} visits, {len(failures)} other ends",
        singing >= FEWEST and not failures,
    )
    body = BODY.format(pickles=pickles, singing=singing, rows="\n".join(rows), footer=footer)
    return Section("Malicious checkpoints", body, failures, (row,))


def _doors(plate: Path) -> Mapping[str, Door]:
    def embed(model: Path, out: Path) -> list[str]:
        return [
            "embed",
            str(plate),
            "--model",
            str(model),
            "--device",
            "cpu",
            "--out",
            str(out / "t.parquet"),
        ]

    def as_weights(path: Path, out: Path) -> list[str]:
        return embed(_copied(path, path.with_name("as") / "other.safetensors"), out)

    def as_run(path: Path, out: Path) -> list[str]:
        return embed(_copied(path, path.with_name("run") / "model.safetensors").parent, out)

    return {
        "`cellvim import-checkpoint FILE`": lambda path, out: ["import-checkpoint", str(path), "--out", str(out)],
        "`cellvim embed --model FILE.ckpt`": embed,
        "`cellvim embed --model FILE.safetensors`": as_weights,
        "`cellvim embed --model RUN`": as_run,
    }  # fmt: skip


def _judge(out: Path, door: str, name: str, end: Ended) -> Visit:
    """Look at what is there, and clear it away."""
    canary, output = _canary(out, name), out / "output"
    has_output = any(path.is_file() for path in output.rglob("*")) if output.exists() else False
    visit = Visit(door, name, canary.exists(), end, has_output)
    canary.unlink(missing_ok=True)
    shutil.rmtree(output, ignore_errors=True)
    return visit


def _count_singing(out: Path, names: tuple[str, ...]) -> int:
    files = [str(_path(out, name)) for name in names]
    command = [sys.executable, "-c", _CARELESS, *files]
    subprocess.run(command, check=False, capture_output=True, cwd=out)  # noqa: S603
    return sum(_canary(out, name).exists() for name in names)


def _path(out: Path, name: str) -> Path:
    return out / "pickles" / f"{name.replace(' ', '-')}.ckpt"


def _canary(out: Path, name: str) -> Path:
    return (out / f"canary-{name.replace(' ', '-')}").absolute()


def _copied(path: Path, copy: Path) -> Path:
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    return copy
