"""Kill a stage at random moments, start it again, and compare every byte with a run that nobody disturbed.

    python -m pipelines.torture --out out/torture --kills 30 --seed 0 --docs docs/reliability.md

The real command runs in a process of its own, on a small synthetic plate. After a random share of the time that an
undisturbed run takes, whatever it is doing then (every fifth time: once it writes a file), it gets SIGKILL or (every
third time) SIGTERM, and the same command is started again. One to three kills later the run may finish; then its
files are compared, and the next run begins, until enough kills have met a living process. Delays are drawn from the
seed; the moments they hit are the machine's.
"""

import argparse
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cellvim.atomic import TEMPORARY_MARK, write_text
from cellvim.config import PretrainSettings
from cellvim.store import FieldKey, PlateWriter

logger = logging.getLogger(__name__)

STEPS = 120
# Checkpoints are many and of some size, so that a good share of a run's life goes into writing them.
SETTINGS: dict[str, object] = {
    "steps": STEPS,
    "batch_size": 4,
    "checkpoint_every": 2,
    "model": {"width": 64, "depth": 2, "patch_px": 8, "decoder_width": 64, "position_grid": 4},
    "crops": {"crop_px": 32},
}
CHANNELS = ("DNA", "ER", "Mito")
MOST_KILLS = 3
"""Kills of one run: some runs are killed again while they resume, and enough of them are begun."""
WITH_TIMES = ("run.json", "report.html")
"""Files that tell when and how fast a run was, and so differ between any two."""
PHASES = (
    "before the first checkpoint",
    "between checkpoints",
    "while a file was being written",
    "after the last step",
)
PAGE = """# Reliability

A run that is killed and started again by the same command ends with the same bytes as one that nobody disturbed.
`make torture` kills the real command at random moments over the whole of its life, while it starts, learns, writes a
checkpoint or writes its results, and starts it again until it is done. As writing takes little of a run's time, every
fifth kill waits until a file is being written.

| stage | kills | runs | files compared | differing bytes | unexpected ends |
|---|---|---|---|---|---|
{rows}
{details}
`{line}` on {date}:
{machine}, {cores} cores, load {load} (1, 5, 15 min) at the end, one thread a run; Python {python}, torch {torch}.
"""
DETAILS = """**{stage}**: `{command}` of {steps} steps on a synthetic plate, a checkpoint every {every}; undisturbed it takes
{seconds:.1f} s. Each run is killed one to three times. Compared are
{compared};
not compared are `run.json` and `report.html`, which tell when and how fast a run was.

A run asked to stop by SIGTERM saves its place and ends with 75 while it learns; before and after that there is no
place to save, and it may end by the signal itself.

| where the kill found it | SIGKILL | SIGTERM | of these exit code 75 |
|---|---|---|---|
{phases}
"""
INTERRUPTED = 75
"""Exit code of a run that SIGTERM asked to stop; one that was learning has saved its place."""
EXPECTED_CODES = (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED)


@dataclass(frozen=True)
class Kill:
    """One signal that met a living process.

    Args:
        delay_s: Seconds after the start of the process.
        sent: Name of the signal.
        code: Exit status.
        phase: What the run had come to, as its folder tells.
    """

    delay_s: float
    sent: str
    code: int
    phase: str


@dataclass
class Campaign:
    """All kills of one stage, and what they did to its results."""

    stage: str
    command: str
    undisturbed_s: float
    compared: tuple[str, ...] = ()
    kills: list[Kill] = field(default_factory=list)
    runs: int = 0
    differing_bytes: int = 0
    unexpected: list[str] = field(default_factory=list)
    """Ends of a process that are neither a kill nor success."""

    @property
    def is_passed(self) -> bool:
        return not self.differing_bytes and not self.unexpected


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for plates and runs, emptied first")
    parser.add_argument("--kills", type=int, default=30, help="kills of each stage")
    parser.add_argument("--seed", type=int, default=0, help="of the delays")
    parser.add_argument("--docs", type=Path, help="page to write")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    campaign = torture_pretraining(chosen.out, kills=chosen.kills, seed=chosen.seed)
    if chosen.docs is not None:
        line = " ".join(["python", "-m", "pipelines.torture", *(arguments or sys.argv[1:])])
        write_text(chosen.docs, reliability_page([campaign], line))
    if not campaign.is_passed:
        sys.exit(f"{campaign.differing_bytes} bytes differ; unexpected ends: {campaign.unexpected}")


def torture_pretraining(out: Path, *, kills: int, seed: int) -> Campaign:
    """Kill `cellvim pretrain` until `kills` signals have met it, and compare every run that was finished."""
    shutil.rmtree(out, ignore_errors=True)
    plate = write_plate(out / "plates")
    write_text(out / "settings.yaml", PretrainSettings.checked(dict(SETTINGS)).to_yaml())
    command = [sys.executable, "-m", "cellvim", "--quiet", "pretrain", str(plate), "--device", "cpu"]
    command += ["--config", str(out / "settings.yaml"), "--out"]
    whole, started = out / "whole", time.perf_counter()
    subprocess.run([*command, str(whole)], check=True, env=_environment(), stdout=subprocess.DEVNULL)  # noqa: S603
    campaign = Campaign("pretrain", "cellvim pretrain", time.perf_counter() - started)
    wanted = hash_files(whole)
    campaign.compared = tuple(wanted)
    generator = np.random.default_rng(seed)
    while len(campaign.kills) < kills:
        run = out / f"run-{campaign.runs}"
        for _ in range(min(int(generator.integers(1, MOST_KILLS + 1)), kills - len(campaign.kills))):
            if not _is_killed([*command, str(run)], run, campaign, generator):
                break
        finish_run([*command, str(run)], campaign)
        campaign.differing_bytes += differing_bytes(whole, run)
        if hash_files(run) == wanted:
            shutil.rmtree(run)
        campaign.runs += 1
        logger.info("%d of %d kills, %d bytes differ", len(campaign.kills), kills, campaign.differing_bytes)
    return campaign


def finish_run(command: list[str], campaign: Campaign) -> None:
    """Start a killed run again and let it end; the campaign remembers if it did not."""
    resumed = subprocess.run(  # noqa: S603
        command, check=False, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if resumed.returncode:
        end = resumed.stderr.decode().strip()[-500:]
        campaign.unexpected.append(f"resumed, exit {resumed.returncode}: {end}")


def reliability_page(campaigns: Sequence[Campaign], line: str) -> str:
    """Set what the campaigns found beside how, where and when it was found."""
    rows = "".join(
        f"| {one.stage} | {len(one.kills)} | {one.runs} | {len(one.compared)} | {one.differing_bytes} | "
        f"{len(one.unexpected)} |\n"
        for one in campaigns
    )
    return PAGE.format(
        rows=rows,
        details="".join(_details(campaign) for campaign in campaigns),
        line=line,
        date=time.strftime("%Y-%m-%d"),
        machine=f"{platform.system()} {platform.machine()}",
        cores=os.cpu_count(),
        load=", ".join(f"{value:.1f}" for value in os.getloadavg()),
        python=platform.python_version(),
        torch=torch.__version__,
    )


def _details(campaign: Campaign) -> str:
    count = Counter((kill.phase, kill.sent) for kill in campaign.kills)
    stopped = Counter(kill.phase for kill in campaign.kills if kill.code == INTERRUPTED)
    phases = [
        f"| {phase} | {count[phase, 'SIGKILL']} | {count[phase, 'SIGTERM']} | {stopped[phase]} |"
        for phase in PHASES
    ]
    return DETAILS.format(
        stage=campaign.stage,
        command=campaign.command,
        steps=STEPS,
        every=SETTINGS["checkpoint_every"],
        seconds=campaign.undisturbed_s,
        compared=", ".join(f"`{name}`" for name in campaign.compared),
        phases="\n".join(phases),
    )


def write_plate(folder: Path) -> Path:
    """Write eight fields of noise with a gradient, enough for a model to learn something from."""
    writer = PlateWriter(folder, "TORTURE", CHANNELS, np.dtype(np.uint16))
    writer.begin()
    fields = [FieldKey(well, site) for well in ("A01", "A02", "B01", "B02") for site in (1, 2)]
    for number, key in enumerate(fields):
        generator = np.random.default_rng(number)
        slope = np.linspace(200, 2000, 64) * generator.uniform(0.5, 1.5, (len(CHANNELS), 64, 1))
        writer.write_field(key, generator.poisson(slope).astype(np.uint16), token=str(number))
    writer.finish(fields)
    return writer.path


def hash_files(run: Path) -> dict[str, str]:
    """SHA-256 of every result of a run that two runs must have in common, its last checkpoint among them."""
    results = [path for path in run.iterdir() if path.is_file() and path.name not in WITH_TIMES]
    checkpoints = sorted(run.glob("checkpoints/step-*.safetensors"))[-1:]
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted([*results, *checkpoints])
    }


def differing_bytes(left: Path, right: Path) -> int:
    """Count the bytes in which the results of two runs differ; a missing file differs in all of its own."""
    total = 0
    for name in hash_files(left).keys() | hash_files(right).keys():
        first, second = (_content(folder / name) for folder in (left, right))
        shared = min(len(first), len(second))
        total += int(np.count_nonzero(first[:shared] != second[:shared])) + abs(len(first) - len(second))
    return total


def _content(path: Path) -> np.ndarray:
    return np.frombuffer(path.read_bytes() if path.exists() else b"", dtype=np.uint8)


def _is_killed(command: list[str], run: Path, campaign: Campaign, generator: np.random.Generator) -> bool:
    """Start a run and kill it after a random time; False if it ended before that."""
    number = len(campaign.kills)
    delay_s = float(generator.uniform(0, campaign.undisturbed_s))
    sent = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
    process = subprocess.Popen(  # noqa: S603
        command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, error = process.communicate(timeout=delay_s)
    except subprocess.TimeoutExpired:
        if number % 5 == 4:
            _wait_for_a_write(process, run)
        process.send_signal(sent)
        _, error = process.communicate()
    if process.returncode in EXPECTED_CODES:
        campaign.kills.append(Kill(delay_s, sent.name, process.returncode, phase_of(run)))
        return True
    if process.returncode:
        campaign.unexpected.append(f"exit {process.returncode}: {error.decode().strip()[-500:]}")
    return False


def _wait_for_a_write(process: subprocess.Popen[bytes], run: Path) -> None:
    """Writing takes a small share of a run's life, so a fifth of the kills go on to the next write."""
    while process.poll() is None and phase_of(run) != PHASES[2]:
        time.sleep(0.0002)


def phase_of(run: Path) -> str:
    """Say from its folder what a dead run had been at."""
    if any(run.rglob(f"{TEMPORARY_MARK}*")):
        return PHASES[2]
    steps = [int(path.stem.removeprefix("step-")) for path in run.glob("checkpoints/step-*.safetensors")]
    if not steps:
        return PHASES[0]
    return PHASES[3] if max(steps) == STEPS else PHASES[1]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
