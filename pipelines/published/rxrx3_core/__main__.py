"""Write the images and tables of a RxRx3-core study, or a profile table of the published embeddings.

python -m pipelines.published.rxrx3_core --source rxrx3_core --out rxrx3_core --experiments gene-001 gene-002
python -m pipelines.published.rxrx3_core --source rxrx3_core --out profiles --embeddings EMBEDDINGS.parquet
"""

from collections.abc import Sequence
from pathlib import Path

from pipelines.published.rxrx3_core.embeddings import write_profiles
from pipelines.published.rxrx3_core.prepare import prepare
from pipelines.published.study_folder import step_parser, study_file_of, told_in_two_lines, write_study


def main(arguments: Sequence[str] | None = None) -> None:
    parser = step_parser(__doc__ or "")
    parser.add_argument(
        "--experiments", nargs="+", default=(), help="such as gene-001 or compound-003; all if absent"
    )
    parser.add_argument(
        "--plates", nargs="+", type=int, default=(), help="numbers within experiments; all if absent"
    )
    parser.add_argument("--embeddings", type=Path, help="write these embeddings as profiles, and no images")
    given = parser.parse_args(arguments)
    with told_in_two_lines():
        if given.embeddings is not None:
            write_profiles(given.source, given.embeddings, given.out, given.experiments)
            return
        tables = prepare(given.source, given.out, given.experiments, given.plates)
        write_study(given.out, tables, study_file_of(prepare), given.source)


if __name__ == "__main__":
    main()
