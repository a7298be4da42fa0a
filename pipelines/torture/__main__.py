"""Torture cellvim, and write down what came of it.

    python -m pipelines.torture --out out/torture --docs docs/reliability.md
    python -m pipelines.torture --out out/torture --only ingest-kills --kills 20

Every campaign writes its own section of the page, and leaves those of the others as they are. What a failed trial
left behind stays in the output folder.
"""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.torture import (
    bitrot,
    embedding,
    full_disks,
    ingest,
    mutants,
    page,
    pretraining,
    read_only,
    writers,
)
from pipelines.torture.page import Section

INGEST = ("tifffile", "zarr", "tensorstore")
"""Packages that an ingest's bytes depend on."""
STAGES = ("torch", "polars", "pyarrow")
"""Packages that the bytes of the other stages depend on."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--docs", type=Path, help="page to write the sections to")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=CAMPAIGNS, help="campaigns to run")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of real plates")
    parser.add_argument("--seed", type=int, default=0, help="of delays and mutants")
    parser.add_argument("--pretrain-kills", type=int, default=30, metavar="N", help="by SIGKILL")
    parser.add_argument("--embed-kills", type=int, default=50, metavar="N", help="by SIGKILL")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="of ingest, by SIGKILL")
    parser.add_argument("--sizes", type=int, default=10, metavar="N", help="of disks that fill up")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of eight writers of a plate")
    parser.add_argument(
        "--stage-rounds", type=int, default=3, metavar="N", help="of eight writers of all else"
    )
    parser.add_argument("--read-only", type=int, default=3, metavar="N", help="trials of each stage")
    parser.add_argument("--mutants", type=int, default=7500, metavar="N", help="two of three of TIFFs")
    parser.add_argument("--flips", type=int, default=1000, metavar="N", help="of bits of a plate")
    chosen = parser.parse_args(arguments)
    # Trials run in folders of their own: a canary that lands in theirs must be looked for there.
    chosen.out, chosen.data = chosen.out.resolve(), chosen.data.resolve()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    line = " ".join(["python", "-m", "pipelines.torture", *(arguments or sys.argv[1:])])
    failures: list[str] = []
    seconds: dict[str, float] = {}
    for name in chosen.only:
        started = time.monotonic()
        section = CAMPAIGNS[name](chosen, line)
        seconds[name] = time.monotonic() - started
        if chosen.docs is not None:
            page.update_page(chosen.docs, section)
        failures += section.complaints
    if chosen.docs is not None:
        section = page.time_section(page.read_times(chosen.docs), seconds, list(CAMPAIGNS))
        page.update_page(chosen.docs, section)
        failures += section.complaints
    if failures:
        sys.exit("\n".join(failures))


def _pretrain(chosen: argparse.Namespace, line: str) -> Section:
    campaign = pretraining.torture_pretraining(
        chosen.out / "pretrain", kills=chosen.pretrain_kills, seed=chosen.seed
    )
    return pretraining.pretraining_section(campaign, page.footer(line, ("torch",)))


def _embed(chosen: argparse.Namespace, line: str) -> Section:
    campaign = embedding.torture_embedding(chosen.out / "embed", kills=chosen.embed_kills, seed=chosen.seed)
    return embedding.embedding_section(campaign, page.footer(line, STAGES))


def _ingest_kills(chosen: argparse.Namespace, line: str) -> Section:
    campaign = ingest.torture_ingest(chosen.data, chosen.out / "kills", kills=chosen.kills, seed=chosen.seed)
    return ingest.ingest_section(campaign, page.footer(line, INGEST))


def _ingest_disk(chosen: argparse.Namespace, line: str) -> Section:
    needs, trials = full_disks.torture_ingest_disk(chosen.data, chosen.out / "disk", sizes=chosen.sizes)
    return full_disks.ingest_disk_section(needs, trials, page.footer(line, INGEST))


def _stages_disk(chosen: argparse.Namespace, line: str) -> Section:
    found = full_disks.torture_disks(chosen.out / "stages-disk", sizes=chosen.sizes)
    return full_disks.disks_section(found, page.footer(line, STAGES))


def _read_only(chosen: argparse.Namespace, line: str) -> Section:
    found = read_only.torture_read_only(chosen.data, chosen.out / "read-only", trials=chosen.read_only)
    return read_only.read_only_section(found, page.footer(line, STAGES))


def _ingest_writers(chosen: argparse.Namespace, line: str) -> Section:
    rounds = writers.torture_writers(chosen.data, chosen.out / "writers", rounds=chosen.rounds)
    return writers.writers_section(rounds, page.footer(line, INGEST))


def _stages_writers(chosen: argparse.Namespace, line: str) -> Section:
    found = writers.torture_other_writers(chosen.out / "stages-writers", rounds=chosen.stage_rounds)
    return writers.other_writers_section(found, page.footer(line, STAGES))


def _ingest_mutants(chosen: argparse.Namespace, line: str) -> Section:
    results = mutants.torture_mutants(
        chosen.data, chosen.out / "mutants", mutants=chosen.mutants, seed=chosen.seed
    )
    return mutants.mutants_section(results, page.footer(line, (*INGEST, "imagecodecs", "polars")))


def _bitrot(chosen: argparse.Namespace, line: str) -> Section:
    rot = bitrot.torture_bits(chosen.data, chosen.out / "bitrot", flips=chosen.flips, seed=chosen.seed)
    return bitrot.rot_section(rot, page.footer(line, INGEST))


def _checkpoints(chosen: argparse.Namespace, line: str) -> Section:
    from pipelines.torture import checkpoints  # with torch

    singing, visits = checkpoints.torture_checkpoints(chosen.out / "checkpoints")
    return checkpoints.checkpoints_section(singing, visits, page.footer(line, ("torch", "safetensors")))


def _doors(chosen: argparse.Namespace, line: str) -> Section:
    from pipelines.torture import doors  # with torch

    trials, bombs = doors.torture_doors(chosen.out / "doors", data=chosen.data)
    return doors.doors_section(trials, bombs, page.footer(line, ("pyyaml", "polars", "tensorstore")))


def _scripts(chosen: argparse.Namespace, line: str) -> Section:
    from pipelines.torture import scripts  # with torch, by the commands it calls

    singing, visits = scripts.torture_scripts(chosen.out / "scripts")
    return scripts.scripts_section(singing, visits, page.footer(line, ("playwright", "jinja2", "altair")))


CAMPAIGNS: dict[str, Callable[[argparse.Namespace, str], Section]] = {
    "pretrain": _pretrain,
    "embed": _embed,
    "ingest-kills": _ingest_kills,
    "ingest-disk": _ingest_disk,
    "stages-disk": _stages_disk,
    "read-only": _read_only,
    "ingest-writers": _ingest_writers,
    "stages-writers": _stages_writers,
    "ingest-mutants": _ingest_mutants,
    "doors": _doors,
    "checkpoints": _checkpoints,
    "scripts": _scripts,
    "bitrot": _bitrot,
}


if __name__ == "__main__":
    main()
