"""Tables on disk: Parquet with zstd, written whole or not at all, the same bytes for the same content."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from cellvim.atomic import write_atomically
from cellvim.embed.plate import EmbeddedPlate
from cellvim.profiles import PROVENANCE_KEY, thumbnails_path


def write_table(path: Path, parts: Sequence[EmbeddedPlate], provenance: dict[str, Any]) -> None:
    """Write all plates' rows as one table that says how it was made."""
    table = pl.concat([part.table for part in parts], how="diagonal_relaxed")
    _write_parquet(path, table, {**provenance, **books(parts)})


def books(parts: Sequence[EmbeddedPlate]) -> dict[str, dict[str, str]]:
    """What is not in the table, and why."""
    return {
        name: {where: why for part in parts for where, why in getattr(part, name).items()}
        for name in ("failed", "skipped", "left_out")
    }


def write_thumbnails(path: Path, parts: Sequence[EmbeddedPlate]) -> None:
    _write_parquet(path, pl.concat([part.thumbnails for part in parts]), {})


def write_part(path: Path, embedded: EmbeddedPlate, identity: str) -> None:
    """Keep a finished plate; the thumbnails first, as the part's presence says that it is complete."""
    _write_parquet(thumbnails_path(path), embedded.thumbnails, {})
    _write_parquet(path, embedded.table, {"identity": identity, **books([embedded])})


def read_part(path: Path) -> EmbeddedPlate:
    """Read a part, or a finished table, back."""
    stored = read_metadata(path)
    return EmbeddedPlate(
        pl.read_parquet(path),
        pl.read_parquet(thumbnails_path(path)),
        failed=stored.get("failed", {}),
        skipped=stored.get("skipped", {}),
        left_out=stored.get("left_out", {}),
    )


def identity_of_table(path: Path) -> str | None:
    """Hash of what a table was made from; None for a file that is not ours."""
    try:
        return read_metadata(path).get("identity")
    except (pa.ArrowInvalid, ValueError):
        return None


def read_metadata(path: Path) -> dict[str, Any]:
    stored = (pq.read_schema(path).metadata or {}).get(PROVENANCE_KEY, b"{}")
    return dict(json.loads(stored))


def _write_parquet(path: Path, table: pl.DataFrame, metadata: dict[str, Any]) -> None:
    arrow = table.to_arrow()
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode()
    arrow = arrow.replace_schema_metadata({PROVENANCE_KEY: text})
    write_atomically(path, lambda temporary: pq.write_table(arrow, temporary, compression="zstd"))
