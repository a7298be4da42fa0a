"""Write the tables of the BBBC022 study.

python -m pipelines.published.bbbc022 --source bbbc022 --out bbbc022
"""

from collections.abc import Sequence

from pipelines.published.bbbc022.prepare import prepare
from pipelines.published.study_folder import run_step


def main(arguments: Sequence[str] | None = None) -> None:
    run_step(prepare, __doc__ or "", arguments)


if __name__ == "__main__":
    main()
