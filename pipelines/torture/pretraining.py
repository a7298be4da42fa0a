"""`cellvim pretrain` on a small synthetic plate, killed and resumed."""

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cellvim.atomic import TEMPORARY_MARK, write_text
from cellvim.config import PretrainSettings
from cellvim.store import FieldKey, PlateWriter
from pipelines.torture.kills import Campaign, Stage, phase_table, torture
from pipelines.torture.page import Section

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

| stage | kills | runs | files compared | differing bytes | unexpected ends |
|---|---|---|---|---|---|
| pretrain | {kills} | {runs} | {files} | {differing} | {unexpected} |

`cellvim pretrain` of {steps} steps on a synthetic plate, a checkpoint every {every}; undisturbed it takes
{seconds:.1f} s. Each run is killed one to three times. Compared are
{compared};
not compared are `run.json` and `report.html`, which tell when and how fast a run was.

A run asked to stop by SIGTERM saves its place and ends with 75 while it learns; before and after that there is no
place to save, and it may end by the signal itself.

{phases}

{footer}
"""


def torture_pretraining(out: Path, *, kills: int, seed: int) -> Campaign:
    """Kill `cellvim pretrain` until `kills` signals have met it, every third of them a SIGTERM."""
    plate = write_plate(out / "plates")
    write_text(out / "settings.yaml", PretrainSettings.checked(dict(SETTINGS)).to_yaml())
    start = [sys.executable, "-m", "cellvim", "--quiet", "pretrain", str(plate), "--device", "cpu"]
    start += ["--config", str(out / "settings.yaml"), "--out"]
    stage = Stage("pretrain", lambda run, _run, _attempt: [*start, str(run)], results, phase_of, PHASES[2])
    signals = [signal.SIGTERM if number % 3 == 2 else signal.SIGKILL for number in range(kills)]
    return torture(stage, out / "runs", signals, seed=seed)


def pretraining_section(campaign: Campaign, footer: str) -> Section:
    """Set what the campaign found beside how, where and when it was found."""
    body = BODY.format(
        kills=len(campaign.kills),
        runs=campaign.runs,
        files=len(campaign.compared),
        differing=campaign.differing_bytes,
        unexpected=len(campaign.unexpected),
        steps=STEPS,
        every=SETTINGS["checkpoint_every"],
        seconds=campaign.undisturbed_s,
        compared=", ".join(f"`{name}`" for name in campaign.compared),
        phases=phase_table(campaign, PHASES),
        footer=footer,
    )
    differing = [f"pretrain: {name} differs" for name in sorted(campaign.differing_files)]
    return Section("Pretraining, killed", body, [*differing, *campaign.unexpected])


def write_plate(folder: Path) -> Path:
    """Write eight fields of noise with a gradient, enough for a model to learn something from."""
    writer = PlateWriter(folder, "TORTURE", CHANNELS, np.dtype(np.uint16))
    writer.begin(overwrite=True)
    fields = [FieldKey(well, site) for well in ("A01", "A02", "B01", "B02") for site in (1, 2)]
    for number, key in enumerate(fields):
        generator = np.random.default_rng(number)
        slope = np.linspace(200, 2000, 64) * generator.uniform(0.5, 1.5, (len(CHANNELS), 64, 1))
        writer.write_field(key, generator.poisson(slope).astype(np.uint16), token=str(number))
    writer.finish(fields)
    return writer.path


def results(run: Path) -> Mapping[str, Path]:
    """Every result of a run that two runs must have in common, its last checkpoint among them."""
    files = [path for path in run.iterdir() if path.is_file() and path.name not in WITH_TIMES]
    checkpoints = sorted(run.glob("checkpoints/step-*.safetensors"))[-1:]
    return {path.relative_to(run).as_posix(): path for path in [*files, *checkpoints]}


def phase_of(run: Path) -> str:
    """Say from its folder what a dead run had been at."""
    if any(run.rglob(f"{TEMPORARY_MARK}*")):
        return PHASES[2]
    steps = [int(path.stem.removeprefix("step-")) for path in run.glob("checkpoints/step-*.safetensors")]
    if not steps:
        return PHASES[0]
    return PHASES[3] if max(steps) == STEPS else PHASES[1]
