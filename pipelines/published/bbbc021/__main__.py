"""Write the tables of the BBBC021 study.

python -m pipelines.published.bbbc021 --source bbbc021 --out bbbc021
"""

from collections.abc import Sequence

from pipelines.published.bbbc021.prepare import prepare
from pipelines.published.study_folder import run_step


def main(arguments: Sequence[str] | None = None) -> None:
    run_step(prepare, __doc__ or "", arguments)


if __name__ == "__main__":
    main()
