"""`cellvim embed` of several plates, killed and resumed."""

import signal
from collections.abc import Mapping
from pathlib import Path

from pipelines.torture.kills import Campaign, Stage, campaign_section, kill_row, shuffled, torture
from pipelines.torture.page import Section
from pipelines.torture.stages import TABLE, WELLS, Job, all_files, embed_job, is_temporary

PLATES = 6
ASKED_KILLS = 50
PHASES = (
    "before the first plate",
    "between plates",
    "while a file was being written",
    "after the last plate",
    "after the table",
)
BODY = """A table whose embedding is killed and started again by the same command has the same bytes as one that nobody
disturbed, and so have the pictures beside it; of the plates that were finished before, and of temporary files, nothing
is left over, no folder either. The real command is killed at random moments over the whole of its life, every fifth
time while a file is being written, one to three times a run.

| kill -9 | SIGTERM | ctrl-C | runs | files compared | differing files | differing bytes | unexpected ends |
|---|---|---|---|---|---|---|---|
| {killed} | {terminated} | {stopped} | {runs} | {files} | {differing_files} | {differing} | {unexpected} |

{plates} synthetic plates of {wells} wells and 2 fields each, one row per tile, and an untrained encoder; undisturbed it takes
{seconds:.1f} s, of which most is the start of Python and torch. Every third run begins with 1 process and is resumed with
2. Not compared is `NAME.run.json`, which tells the time. SIGTERM must end in exit code 75 and ctrl-C in 130, with an
error and a hint and no traceback; while Python still starts, they may end the process by themselves. {finished}

{phases}

{footer}
"""


def torture_embedding(out: Path, *, kills: int, seed: int, plates: int = PLATES) -> Campaign:
    """Kill `cellvim embed` `kills` times by SIGKILL, and a tenth as often by SIGTERM and by ctrl-C.

    Args:
        out: Receives the plates, the model and the runs.
        kills: Number of SIGKILLs.
        seed: Of the order of the signals, and of the delays.
        plates: How many.
    """
    job = embed_job(out / "inputs", plates=plates)
    stage = Stage(
        "embed",
        lambda run, number, attempt: [*job.command(run), "--workers", str(workers_of(number, attempt))],
        lambda run: results(job, run),
        lambda run: phase_of(run, plates),
        PHASES[2],
    )
    others = -(-kills // 10)
    return torture(
        stage,
        out / "runs",
        shuffled({signal.SIGKILL: kills, signal.SIGTERM: others, signal.SIGINT: others}, seed=seed),
        seed=seed,
    )


def workers_of(run: int, attempt: int) -> int:
    """One; but every third run goes on with two."""
    return 2 if run % 3 == 1 and attempt else 1


def embedding_section(campaign: Campaign, footer: str) -> Section:
    """Set what the campaign found beside how, where and when it was found."""
    row = kill_row(campaign, asked=ASKED_KILLS, test="`embed`")
    return campaign_section(
        campaign, "Embedding, killed", BODY, PHASES, (row,),
        plates=PLATES, wells=len(WELLS), footer=footer,
    )  # fmt: skip


def results(job: Job, run: Path) -> Mapping[str, Path]:
    """Every file that two runs must have in common; a folder that is left over, and empty, is told like one."""
    empty = [path for path in run.rglob("*/") if not any(path.iterdir())]
    return {**job.results(run), **{f"{path.relative_to(run)}/": Path("/dev/null") for path in empty}}


def phase_of(run: Path, plates: int) -> str:
    """Say from its folder what a dead run of so many plates had been at."""
    files = all_files(run)
    if any(is_temporary(name) for name in files):
        return PHASES[2]
    if f"tables/{TABLE}" in files:
        return PHASES[4]
    done = sum(
        name.startswith(f"tables/{TABLE}.parts/P") and not name.endswith(".thumbnails.parquet")
        for name in files
    )
    return PHASES[0] if not done else PHASES[1] if done < plates else PHASES[3]
