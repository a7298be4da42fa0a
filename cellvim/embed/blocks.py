"""One table per block of the encoder, all from the same forward passes: for finding out which block is best."""

from collections.abc import Sequence
from glob import escape
from pathlib import Path

import polars as pl

from cellvim.config import EmbedSettings


def chosen_blocks(settings: EmbedSettings, depth: int) -> tuple[int, ...]:
    """Blocks that get a table each: those of `layers`, else every block of the model; none if one table is wanted."""
    if not settings.each_layer:
        return ()
    return settings.layers or tuple(range(depth))


def block_path(out: Path, block: int) -> Path:
    """``NAME.block02.parquet`` for NAME.parquet."""
    return out.with_name(f"{out.stem}.block{block:02d}{out.suffix}")


def other_blocks(out: Path, written: Sequence[Path]) -> list[Path]:
    """Tables of blocks that lie beside those just written, and that ``NAME.block*.parquet`` would match, too."""
    found = out.parent.glob(f"{escape(out.stem)}.block[0-9][0-9]{out.suffix}")
    return sorted(set(found) - set(written))


def feature_names(count: int, blocks: Sequence[int] = ()) -> list[str]:
    """Names of a row's features: ``emb_0000`` and on, behind the name of the block where several get a table each."""
    if not blocks:
        return [f"emb_{index:04d}" for index in range(count)]
    names = feature_names(count // len(blocks))
    return [f"{_prefix(block)}{name}" for block in blocks for name in names]


def table_of_block(table: pl.DataFrame, block: int) -> pl.DataFrame:
    """Take the columns of one block out of the rows of all, under the names that features have anywhere."""
    prefix = _prefix(block)
    names = [name for name in table.columns if name.startswith(("Metadata_", prefix))]
    return table.select(names).rename({name: name.removeprefix(prefix) for name in names})


def _prefix(block: int) -> str:
    return f"block{block:02d}_"
