"""`cellvim pretrain` on a small synthetic plate, killed and resumed."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from cellvim.atomic import TEMPORARY_MARK, write_text
from cellvim.config import PretrainSettings
from cellvim.errors import ExitCode
from pipelines.torture.kills import Campaign, Stage, campaign_section, kill_row, shuffled, torture
from pipelines.torture.page import Row, Section
from pipelines.torture.stages import write_plate

STEPS = 120
# Checkpoints are many and of some size, so that a good share of a run's life goes into writing them.
SETTINGS: dict[str, object] = {
    "steps": STEPS,
    "batch_size": 4,
    "checkpoint_every": 2,
    "model": {"width": 64, "depth": 2, "patch_px": 8, "decoder_width": 64, "position_grid": 4},
    "crops": {"crop_px": 32},
}
ASKED_KILLS, ASKED_S = 30, 30.0
WITH_TIMES = ("run.json", "report.html")
"""Files that tell when and how fast a run was, and so differ between any two."""
PHASES = (
    "before the first checkpoint",
    "between checkpoints",
    "while a file was being written",
    "after the last step",
)
BODY = """A run that is killed and started again by the same command ends with the same bytes as one that nobody disturbed.
The real command is killed at random moments over the whole of its life, while it starts, learns, writes a checkpoint or
writes its results, and started again until it is done. As writing takes little of a run's time, every fifth kill waits
until a file is being written.

| kill -9 | SIGTERM | runs | files compared | differing bytes | unexpected ends |
|---|---|---|---|---|---|
| {killed} | {terminated} | {runs} | {files} | {differing} | {unexpected} |

`cellvim pretrain` of {steps} steps on a synthetic plate, a checkpoint every {every}; undisturbed it takes
{seconds:.1f} s. Each run is killed one to three times. Compared are
{compared};
not compared are `run.json` and `report.html`, which tell when and how fast a run was.

A run asked to stop by SIGTERM saves its place and ends with 75 while it learns; before and after that there is no
place to save, and it may end by the signal itself. It takes the step that it is in and writes a checkpoint before it
ends: {longest:.1f} s at most from the signal to the end of the process. Steps of this model are short; a model whose steps
take longer ends that much later ([training speed](training_speed.md)). {finished}

{phases}

{footer}
"""


def torture_pretraining(out: Path, *, kills: int, seed: int, steps: int = STEPS) -> Campaign:
    """Kill `cellvim pretrain` `kills` times by SIGKILL, and a third as often by SIGTERM."""
    plate = write_plate(out / "plates", "TORTURE")
    write_text(out / "settings.yaml", PretrainSettings.checked({**SETTINGS, "steps": steps}).to_yaml())
    start = [sys.executable, "-m", "cellvim", "--quiet", "pretrain", str(plate), "--device", "cpu"]
    start += ["--config", str(out / "settings.yaml"), "--out"]
    stage = Stage(
        "pretrain",
        lambda run, _run, _attempt: [*start, str(run)],
        results,
        lambda run: phase_of(run, last=steps),
        PHASES[2],
    )
    return torture(
        stage,
        out / "runs",
        shuffled({signal.SIGKILL: kills, signal.SIGTERM: -(-kills // 3)}, seed=seed),
        seed=seed,
    )


def pretraining_section(campaign: Campaign, footer: str) -> Section:
    """Set what the campaign found beside how, where and when it was found."""
    rows = (kill_row(campaign, asked=ASKED_KILLS, test="`pretrain`"), _sigterm_row(campaign))
    return campaign_section(
        campaign, "Pretraining, killed", BODY, PHASES, rows,
        steps=STEPS, every=SETTINGS["checkpoint_every"], longest=campaign.longest_s("SIGTERM"),
        compared=", ".join(f"`{name}`" for name in campaign.compared), footer=footer,
    )  # fmt: skip


def _sigterm_row(campaign: Campaign) -> Row:
    """What became of runs that were learning when they were asked to stop."""
    sent = [kill for kill in campaign.kills if kill.sent == "SIGTERM" and kill.phase in PHASES[1:3]]
    longest = campaign.longest_s("SIGTERM")
    codes = ", ".join(str(code) for code in sorted({kill.code for kill in sent}))
    found = f"{len(sent)} while it learned: exit {codes or 'never seen'}, {longest:.1f} s at most, {campaign.differing_bytes} bytes differ"
    is_met = (
        {kill.code for kill in sent} == {int(ExitCode.INTERRUPTED)}
        and longest <= ASKED_S
        and campaign.is_passed
    )
    asked = f"checkpoint and exit 75 within {ASKED_S:g} s, same weights after resuming"
    return Row("SIGTERM", "during `pretrain`, then resumed", asked, found, is_met)


def results(run: Path) -> Mapping[str, Path]:
    """Every result of a run that two runs must have in common, its last checkpoint among them."""
    files = [path for path in run.iterdir() if path.is_file() and path.name not in WITH_TIMES]
    checkpoints = sorted(run.glob("checkpoints/step-*.safetensors"))[-1:]
    return {path.relative_to(run).as_posix(): path for path in [*files, *checkpoints]}


def phase_of(run: Path, *, last: int = STEPS) -> str:
    """Say from its folder what a dead run of `last` steps had been at."""
    if any(run.rglob(f"{TEMPORARY_MARK}*")):
        return PHASES[2]
    steps = [int(path.stem.removeprefix("step-")) for path in run.glob("checkpoints/step-*.safetensors")]
    if not steps:
        return PHASES[0]
    return PHASES[3] if max(steps) == last else PHASES[1]
