"""Write the tables of the CPJUMP1 study.

python -m pipelines.published.cpjump1 --source cpjump1 --out cpjump1
"""

from collections.abc import Sequence

from pipelines.published.cpjump1.prepare import prepare
from pipelines.published.study_folder import run_step


def main(arguments: Sequence[str] | None = None) -> None:
    run_step(prepare, __doc__ or "", arguments)


if __name__ == "__main__":
    main()
