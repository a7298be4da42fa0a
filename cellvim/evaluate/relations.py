"""A user's file of known relationships: pairs of perturbations or compounds that belong together."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from cellvim.profiles.schema import SEPARATORS, SUFFIXES, require_file

COLUMNS = ("first", "second", "source")
HINT = (
    "give a table with a header whose first two columns name the two of a pair; a third may name the source"
)


@dataclass(frozen=True)
class Relations:
    """Known pairs.

    Args:
        pairs: Rows `first, second, source`, names of a pair in alphabetical order, each pair once per source;
            `source` is null throughout if the file has no third column.
        self_pairs: Rows that name the same thing twice; left out.
        doubled: Rows that repeat a pair of the same source, in either order; left out.
        incomplete: Rows that lack a name; left out.
    """

    pairs: pl.DataFrame
    self_pairs: int
    doubled: int
    incomplete: int


def read_relations(path: Path, known: Collection[str]) -> Relations:
    """Read pairs from a Parquet, CSV or TSV file (also gzipped); every cell is a name, numbers as they are written.

    Args:
        path: The file.
        known: Names in the table of profiles, by which a file without a header is recognised.

    Raises:
        NotFoundError: No such file.
        InputError: It cannot be read, has fewer than two columns, no rows, no header, or cells that are no names.
    """
    table = read_names(path)
    if table.width < 2:
        raise refusal(path, f"has {table.width} column(s), and a pair needs two")
    header = table.columns[:2]
    if all(name in known for name in header):
        raise refusal(path, f"begins with a pair ({header[0]} and {header[1]}), not with a header")
    if table.is_empty():
        raise refusal(path, "has no rows below its header")
    table = table.select(table.columns[: len(COLUMNS)])
    table.columns = COLUMNS[: table.width]
    if table.width < len(COLUMNS):
        table = table.with_columns(pl.lit(None, dtype=pl.String).alias("source"))
    complete = table.drop_nulls(["first", "second"])
    others = complete.filter(pl.col("first") != pl.col("second"))
    ordered = others.select(
        pl.min_horizontal("first", "second").alias("first"),
        pl.max_horizontal("first", "second").alias("second"),
        "source",
    )
    pairs = ordered.unique().sort(COLUMNS)
    return Relations(
        pairs=pairs,
        self_pairs=complete.height - others.height,
        doubled=others.height - pairs.height,
        incomplete=table.height - complete.height,
    )


def read_names(path: Path) -> pl.DataFrame:
    """Read the file as text; empty cells are null."""
    require_file(path)
    suffix = next((known for known in SUFFIXES if path.name.lower().endswith(known)), None)
    if suffix is None:
        found = f"{path} is not a file of relationships that can be read by its ending"
        raise InputError(found, hint=f"give a file ending in {', '.join(SUFFIXES)}")
    try:
        if suffix in SEPARATORS:
            return pl.read_csv(path, separator=SEPARATORS[suffix], infer_schema=False, null_values=[""])
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        first_line = (str(error).splitlines() or ["it is damaged"])[0]
        raise refusal(path, f"cannot be read as a {suffix} table: {first_line}") from error
    return as_text(table, path)


def as_text(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    table = table.select(table.columns[: len(COLUMNS)])
    for name, kind in table.schema.items():
        if kind.is_nested() or kind in (pl.Binary, pl.Object):
            raise refusal(path, f"holds {kind} in its column {name}, not names")
    return table.select(pl.all().cast(pl.String).replace("", None))


def refusal(path: Path, what: str) -> InputError:
    return InputError(f"{path} {what}", hint=HINT)
