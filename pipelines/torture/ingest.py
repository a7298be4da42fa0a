"""`cellvim ingest` of a plate with several channels and z planes, killed and resumed."""

import signal
from pathlib import Path

from pipelines.torture.kills import Campaign, Stage, campaign_section, kill_row, shuffled, torture
from pipelines.torture.page import Section
from pipelines.torture.screen import NAME, copy_screen, ingest_command, output_files
from pipelines.torture.stages import is_temporary

WELLS = 24
SITES = 2
ASKED_KILLS = 100
PHASES = (
    "before the plate was begun",
    "between fields",
    "while a file was being written",
    "after the last field",
    "after the last file",
)
BODY = """A plate whose ingest is killed and started again by the same command ends with the same bytes as one that nobody
disturbed: every file of `PLATE.ome.zarr` and of `PLATE.cellvim`, but for `run.json`, which tells the time. No file is
left over. The real command is killed at random moments over the whole of its life, every fifth time while a file is
being written, one to three times a run.

| kill -9 | SIGTERM | ctrl-C | runs | files compared | differing files | differing bytes | unexpected ends |
|---|---|---|---|---|---|---|---|
| {killed} | {terminated} | {stopped} | {runs} | {files} | {differing_files} | {differing} | {unexpected} |

The plate: {wells} wells of real MetaXpress images, {sites} sites, 3 channels, 2 z planes each, {images} files; undisturbed
it takes {seconds:.1f} s with 2 workers. Every third run begins with 1 worker and is resumed with 4. SIGTERM must end in
exit code 75 and ctrl-C in 130, with an error and a hint and no traceback; while Python still starts, they may end the
process by themselves. {finished}

{phases}

{footer}
"""


def torture_ingest(data: Path, out: Path, *, kills: int, seed: int, wells: int = WELLS) -> Campaign:
    """Kill `cellvim ingest` `kills` times by SIGKILL, and a fifth as often by SIGTERM and by ctrl-C.

    Args:
        data: Folder of real plates.
        out: Receives the plate and the runs.
        kills: Number of SIGKILLs.
        seed: Of the order of the signals, and of the delays.
        wells: Size of the plate.
    """
    source = copy_screen(data, out / "source", wells=wells)
    stage = Stage(
        "ingest",
        lambda run, number, attempt: ingest_command(source, run, workers=workers_of(number, attempt)),
        output_files,
        lambda run: phase_of(run, wells * SITES),
        PHASES[2],
    )
    others = -(-kills // 5)
    return torture(
        stage,
        out / "runs",
        shuffled({signal.SIGKILL: kills, signal.SIGTERM: others, signal.SIGINT: others}, seed=seed),
        seed=seed,
    )


def workers_of(run: int, attempt: int) -> int:
    """Two; but every third run begins with one and goes on with four."""
    if run % 3 != 1:
        return 2
    return 1 if attempt == 0 else 4


def ingest_section(campaign: Campaign, footer: str) -> Section:
    """Set what the campaign found beside how, where and when it was found."""
    row = kill_row(campaign, asked=ASKED_KILLS, test="`ingest`")
    return campaign_section(
        campaign, "Ingest, killed", BODY, PHASES, (row,),
        wells=WELLS, sites=SITES, images=WELLS * SITES * 6, footer=footer,
    )  # fmt: skip


def phase_of(out: Path, fields: int) -> str:
    """Say from its folder what a dead run of a plate with so many fields had been at."""
    companion = out / f"{NAME}.cellvim"
    if not (companion / "plate.json").exists():
        return PHASES[0]
    files = output_files(out)
    if any(is_temporary(name) for name in files):
        return PHASES[2]
    if (out / f"{NAME}.ome.zarr" / "zarr.json").exists():
        return PHASES[4]
    return (
        PHASES[3]
        if sum("/fields/" in name and name.endswith(".json") for name in files) == fields
        else PHASES[1]
    )
