r"""Which settings of the model make better profiles? One factor at a time from the default, over several seeds.

On synthetic plates with known truth and on BBBC013, all variants with the same data, recipe and number of steps. One
command, from the root of the project, is what `make study` runs; about an hour and a quarter on two cores:

    python -m pipelines.model_study --source ../shared/data/bbbc013 --out out/model_study \
        --docs docs/model_study.md --workers 2 --confirm

Finished runs are kept, and an interrupted one goes on at its last checkpoint: run the same command again.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from pipelines.model_study.jobs import BASELINE, run_study, write_page
from pipelines.model_study.run import Study
from pipelines.model_study.variants import CONFIRMED


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="folder of BBBC013; synthetic plates only if absent")
    parser.add_argument("--out", type=Path, default=Path("out/model_study"))
    parser.add_argument("--docs", type=Path, default=Path("docs/model_study.md"), help="page to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT", help="run these variants only")
    parser.add_argument(
        "--confirm", action="store_true", help="then train some rows for longer, on fresh seeds"
    )
    parser.add_argument("--page", action="store_true", help="run nothing; write the page of what is finished")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    study = Study(given.out, given.source, tuple(given.seeds))
    if not given.page:
        run_study(study, workers=given.workers, only=given.only)
    if given.confirm and not given.page:
        run_study(study.confirmation, workers=given.workers, only=[*CONFIRMED, BASELINE])
    write_page(study, given.docs)


if __name__ == "__main__":
    main()
