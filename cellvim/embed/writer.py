"""Tables on disk: Parquet with zstd, written whole or not at all, the same bytes for the same content."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cellvim.atomic import write_atomically
from cellvim.profiles import PROVENANCE_KEY
from cellvim.profiles.schema import METADATA_PREFIX

MOST_ROWS = 16_384
"""Rows of a group: what is in memory at once while tables are put together. A plate of wells or fields is one group."""


def write_table(path: Path, table: pl.DataFrame, metadata: Mapping[str, Any]) -> None:
    """Write a table that says what it is, as JSON under the key `cellvim`."""
    _write(path, table.schema, iter((table,)), metadata)


def join_tables(
    path: Path,
    parts: Sequence[Path],
    metadata: Mapping[str, Any],
    *,
    take: Callable[[pl.DataFrame], pl.DataFrame] = lambda table: table,
) -> None:
    """Write the rows of several tables as one, group of rows by group of rows, in the order of the parts.

    It has every column that some part has: metadata first, then features; null where a part does not know.

    Args:
        path: Table to write.
        parts: Tables to read; those without rows add nothing.
        metadata: What the table says about itself.
        take: Chooses and names the columns wanted of a part.
    """
    filled = [part for part in parts if pq.read_metadata(part).num_rows] or list(parts[:1])
    schema = _common_schema([take(pl.DataFrame(schema=pl.read_parquet_schema(part))) for part in filled])
    blocks = (_fitted(take(block), schema) for part in filled for block in _blocks(part))
    _write(path, schema, blocks, metadata)


def identity_of_table(path: Path) -> str | None:
    """Hash of what a table was made from; None for a file that is not ours."""
    try:
        return read_metadata(path).get("identity")
    except (pa.ArrowException, ValueError):
        return None


def read_metadata(path: Path) -> dict[str, Any]:
    """What a table says about itself; empty if it says nothing.

    Raises:
        ArrowInvalid: The file is not a Parquet table.
    """
    stored = (pq.read_schema(path).metadata or {}).get(PROVENANCE_KEY, b"{}")
    return dict(json.loads(stored))


def _common_schema(tables: Sequence[pl.DataFrame]) -> pl.Schema:
    joined = pl.concat(tables, how="diagonal_relaxed").schema
    # Sorting is stable: within metadata, and within features, the order of the parts stays.
    ordered = sorted(joined, key=lambda name: not name.startswith(METADATA_PREFIX))
    return pl.Schema({name: joined[name] for name in ordered})


def _blocks(part: Path) -> Iterator[pl.DataFrame]:
    with pq.ParquetFile(part) as file:
        for group in range(file.num_row_groups):
            block = pl.from_arrow(file.read_row_group(group))
            assert isinstance(block, pl.DataFrame)  # noqa: S101 - of a table, not of an array
            yield block


def _fitted(block: pl.DataFrame, schema: pl.Schema) -> pl.DataFrame:
    columns = [
        (pl.col(name) if name in block.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    ]
    return block.select(columns)


def _write(
    path: Path, schema: pl.Schema, blocks: Iterator[pl.DataFrame], metadata: Mapping[str, Any]
) -> None:
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode()
    arrow = pl.DataFrame(schema=schema).to_arrow().schema.with_metadata({PROVENANCE_KEY: text})
    # Features hardly ever repeat a value, and nobody filters by one: no dictionaries, no smallest and largest.
    described = [name for name in schema if name.startswith(METADATA_PREFIX)]

    def fill(temporary: Path) -> None:
        with pq.ParquetWriter(
            temporary, arrow, compression="zstd", use_dictionary=described, write_statistics=described
        ) as writer:
            for block in blocks:
                writer.write_table(block.to_arrow().cast(arrow), row_group_size=MOST_ROWS)

    write_atomically(path, fill)
