"""Eight `cellvim ingest` on one plate at the same moment: one writes, seven say who does."""

import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cellvim.errors import ExitCode
from pipelines.torture.kills import SHOWN, environment
from pipelines.torture.page import Section
from pipelines.torture.screen import NAME, copy_screen, ingest_command, output_files

WRITERS = 8
WELLS = 4
PATIENCE_S = 120.0
# The command itself, but for a line that it waits for, so that all of them set out at the same moment.
WAIT_AND_RUN = "import sys; import cellvim.cli, cellvim.ingest; sys.stdin.readline(); cellvim.cli.main()"
_PID = re.compile(rf"{NAME}\.cellvim is being written by process (\d+) on ")
BODY = """{writers} processes begin to ingest the same plate into the same folder at the same moment, {rounds} times. The first to
hold the plate's lock is halted until the others have ended, as if it had much to write. One must win; the others must
end with exit code 4 and name the process of the winner. Afterwards `cellvim verify` must find the plate intact, and every
file must be that of an undisturbed run.

| rounds | winners | refused with exit code 4 | of these naming the winner | plates intact and the same | unexpected |
|---|---|---|---|---|---|
| {rounds} | {winners} | {refused} | {named} | {intact} | {unexpected} |

{footer}
"""


@dataclass(frozen=True)
class Round:
    """One race.

    Attributes:
        winners: Processes that ended well.
        refused: Processes that ended with exit code 4.
        named: Those of them that named the winner's process.
        is_intact: `verify` found no damage, and every file is the right one.
        unexpected: Other ends.
    """

    winners: int
    refused: int
    named: int
    is_intact: bool
    unexpected: tuple[str, ...]

    @property
    def is_passed(self) -> bool:
        others = WRITERS - 1
        return (self.winners, self.refused, self.named, self.is_intact) == (1, others, others, True)


def torture_writers(data: Path, out: Path, *, rounds: int, wells: int = WELLS) -> list[Round]:
    """Let eight processes write one plate, `rounds` times."""
    shutil.rmtree(out, ignore_errors=True)
    source = copy_screen(data, out / "source", wells=wells)
    command = ingest_command(source, out / "whole")
    subprocess.run(command, check=True, env=environment(), stdout=subprocess.DEVNULL)  # noqa: S603
    wanted = {name: path.read_bytes() for name, path in output_files(out / "whole").items()}
    found = []
    for number in range(rounds):
        found.append(_race(source, out / f"round-{number}", wanted))
        if found[-1].is_passed:
            shutil.rmtree(out / f"round-{number}")
    return found


def writers_section(rounds: list[Round], footer: str) -> Section:
    """Set how the races ended beside how, where and when they were run."""
    unexpected = [line for one in rounds for line in one.unexpected]
    body = BODY.format(
        writers=WRITERS,
        rounds=len(rounds),
        winners=sum(one.winners for one in rounds),
        refused=sum(one.refused for one in rounds),
        named=sum(one.named for one in rounds),
        intact=sum(one.is_intact for one in rounds),
        unexpected=len(unexpected),
        footer=footer,
    )
    bad = [f"round {number}: {one}" for number, one in enumerate(rounds) if not one.is_passed]
    return Section("Eight writers on one plate", body, bad)


def _race(source: Path, out: Path, wanted: dict[str, bytes]) -> Round:
    arguments = ingest_command(source, out)[3:]
    command = [sys.executable, "-c", WAIT_AND_RUN, *arguments]
    processes = [
        subprocess.Popen(  # noqa: S603
            command, env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for _ in range(WRITERS)
    ]  # fmt: skip
    # All have read their imports once the last of them is this old; none has looked at the plate.
    time.sleep(0.5)
    for process in processes:
        assert process.stdin is not None  # noqa: S101 - asked for above
        process.stdin.write("go\n")
        process.stdin.flush()
    winner = _halt_the_first(processes, out / f"{NAME}.cellvim" / "lock")
    ends = [(process, process.communicate()[1]) for process in processes if process is not winner]
    if winner is not None:
        winner.send_signal(signal.SIGCONT)
        ends.append((winner, winner.communicate()[1]))
    return _judge(ends, out, wanted)


def _halt_the_first(processes: list[subprocess.Popen[str]], lock: Path) -> subprocess.Popen[str] | None:
    """Stop the process that holds the lock; None if nobody ever did."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and any(process.poll() is None for process in processes):
        try:
            holder = re.search(r'"pid": (\d+)', lock.read_text())
        except OSError:
            holder = None
        for process in processes:
            if holder is not None and process.pid == int(holder[1]):
                process.send_signal(signal.SIGSTOP)
                return process
        time.sleep(0.0002)
    return None


def _judge(ends: list[tuple[subprocess.Popen[str], str]], out: Path, wanted: dict[str, bytes]) -> Round:
    winners = [process.pid for process, _ in ends if process.returncode == 0]
    refused = [words for process, words in ends if process.returncode == ExitCode.EXISTS]
    names = [match for words in refused if (match := _PID.search(words)) is not None]
    verify = [sys.executable, "-m", "cellvim", "verify", str(out)]
    checked = subprocess.run(verify, check=False, env=environment(), capture_output=True)  # noqa: S603
    files = {name: path.read_bytes() for name, path in output_files(out).items()}
    return Round(
        winners=len(winners),
        refused=len(refused),
        named=sum([int(name[1])] == winners for name in names),
        is_intact=checked.returncode == 0 and files == wanted,
        unexpected=tuple(
            f"exit {process.returncode}: {words.strip()[-SHOWN:]}"
            for process, words in ends
            if process.returncode not in (0, ExitCode.EXISTS)
        ),
    )
