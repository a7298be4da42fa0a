"""The folder of a study that is made for a published data set: its tables, and a copy of its study file."""

import argparse
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from cellvim.atomic import write_text
from cellvim.errors import CellvimError, InputError
from cellvim.ingest.sources import list_files

logger = logging.getLogger(__name__)

STUDY_FILE = "study.yaml"
IMAGES = "images: images"
"""Line of a study file that the folder of the images replaces."""


@dataclass(frozen=True)
class StudyTables:
    """What a study needs beside its study file.

    Attributes:
        plates: Name of each plate, and the folder or the table that its images are found by.
        platemap: One row per plate and well.
        load_data: Tables of images by plate, for plates whose folders say too little.
    """

    plates: Mapping[str, Path]
    platemap: pl.DataFrame
    load_data: Mapping[str, pl.DataFrame] = field(default_factory=dict)


def run_step(
    prepare: Callable[[Path, Path], StudyTables], about: str, arguments: Sequence[str] | None
) -> None:
    """Command line of a data set: read `--source`, write the tables and the study file to `--out`."""
    parser = step_parser(about)
    given = parser.parse_args(arguments)
    with told_in_two_lines():
        write_study(given.out, prepare(given.source, given.out), study_file_of(prepare), given.source)


def step_parser(about: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--source", type=Path, required=True, help="folder of what was fetched; see README.md"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the study; may be the same")
    return parser


@contextmanager
def told_in_two_lines() -> Iterator[None]:
    """Log what is done, and end with an error, a hint and an exit code where something is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        yield
    except CellvimError as error:
        logger.error("error: %s", error.found)  # noqa: TRY400 - people get no traceback
        logger.error("hint: %s", error.hint)  # noqa: TRY400
        raise SystemExit(int(error.exit_code)) from None


def study_file_of(prepare: Callable[..., StudyTables]) -> Path:
    """The study file that lies beside the code of a data set."""
    return Path(inspect.getfile(prepare)).with_name(STUDY_FILE)


def write_study(out: Path, tables: StudyTables, study_file: Path, source: Path) -> None:
    """Write plates.csv, platemap.csv, load_data/PLATE.csv, and study.yaml if there is none yet.

    Args:
        out: Folder of the study.
        tables: What goes there.
        study_file: The study file to copy. Its line `images: images` gets the folder of the images.
        source: Folder of what was fetched.

    Raises:
        InputError: There is not a single plate.
    """
    if not tables.plates:
        message = f"{source} holds no images of any plate that its tables name"
        raise InputError(message, hint="the README.md beside the study file says how the folders must look")
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.load_data.items():
        (out / "load_data").mkdir(exist_ok=True)
        write_text(out / "load_data" / f"{name}.csv", table.write_csv())
    plates = [(name, relative(path, out)) for name, path in sorted(tables.plates.items())]
    write_text(out / "plates.csv", pl.DataFrame(plates, schema=["name", "images"], orient="row").write_csv())
    write_text(out / "platemap.csv", tables.platemap.write_csv())
    if not (out / STUDY_FILE).exists():
        images = f"images: {json.dumps(relative(source, out))}"
        write_text(out / STUDY_FILE, study_file.read_text("utf-8").replace(IMAGES, images))
    wells = tables.platemap.height
    logger.info("%d plates, %d wells: next, cellvim study plan %s", len(plates), wells, out / STUDY_FILE)


def relative(path: Path, folder: Path) -> str:
    """Spell a path from a folder; the study and its images can then be moved together."""
    return os.path.relpath(path.resolve(), folder.resolve())


def images_by_name(source: Path) -> dict[tuple[str, str], Path]:
    """Find the images below a folder by the name of their own folder and their own."""
    return {(path.parent.name, path.name): path for path in list_files(source.resolve())}


def load_data_table(rows: Sequence[Mapping[str, str | int]]) -> pl.DataFrame:
    """Order the rows of a load_data.csv by well and site."""
    return pl.DataFrame(list(rows)).sort("Metadata_Well", "Metadata_Site")
