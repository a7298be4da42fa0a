"""Torture cellvim, and write down what came of it.

    python -m pipelines.torture --out out/torture --docs docs/reliability.md
    python -m pipelines.torture --out out/torture --only ingest-kills --kills 20

Every campaign writes its own section of the page, and leaves those of the others as they are. What a failed trial
left behind stays in the output folder.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.torture import bitrot, disk, ingest, mutants, page, writers
from pipelines.torture.page import Section

INGEST = ("tifffile", "zarr", "tensorstore")
"""Packages that an ingest's bytes depend on."""


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
    parser.add_argument("--pretrain-kills", type=int, default=30, metavar="N")
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="of ingest, by SIGKILL")
    parser.add_argument("--sizes", type=int, default=10, metavar="N", help="of disks that fill up")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="of eight writers")
    parser.add_argument("--mutants", type=int, default=7500, metavar="N", help="two of three of TIFFs")
    parser.add_argument("--flips", type=int, default=1000, metavar="N", help="of bits of a plate")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    line = " ".join(["python", "-m", "pipelines.torture", *(arguments or sys.argv[1:])])
    failures: list[str] = []
    for name in chosen.only:
        section = CAMPAIGNS[name](chosen, line)
        if chosen.docs is not None:
            page.update_page(chosen.docs, section)
        failures += section.complaints
    if failures:
        sys.exit("\n".join(failures))


def _pretrain(chosen: argparse.Namespace, line: str) -> Section:
    from pipelines.torture import pretraining  # with torch, which no other campaign needs

    campaign = pretraining.torture_pretraining(
        chosen.out / "pretrain", kills=chosen.pretrain_kills, seed=chosen.seed
    )
    return pretraining.pretraining_section(campaign, page.footer(line, ("torch",)))


def _ingest_kills(chosen: argparse.Namespace, line: str) -> Section:
    campaign = ingest.torture_ingest(chosen.data, chosen.out / "kills", kills=chosen.kills, seed=chosen.seed)
    return ingest.ingest_section(campaign, page.footer(line, INGEST))


def _ingest_disk(chosen: argparse.Namespace, line: str) -> Section:
    needs, trials = disk.torture_disk(chosen.data, chosen.out / "disk", sizes=chosen.sizes)
    return disk.disk_section(needs, trials, page.footer(line, INGEST))


def _ingest_writers(chosen: argparse.Namespace, line: str) -> Section:
    rounds = writers.torture_writers(chosen.data, chosen.out / "writers", rounds=chosen.rounds)
    return writers.writers_section(rounds, page.footer(line, INGEST))


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


CAMPAIGNS: dict[str, Callable[[argparse.Namespace, str], Section]] = {
    "pretrain": _pretrain,
    "ingest-kills": _ingest_kills,
    "ingest-disk": _ingest_disk,
    "ingest-writers": _ingest_writers,
    "ingest-mutants": _ingest_mutants,
    "checkpoints": _checkpoints,
    "bitrot": _bitrot,
}


if __name__ == "__main__":
    main()
