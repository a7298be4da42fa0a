"""What the pixels of a written plate say that its owner should hear at once; the QC page has the rest."""

from collections.abc import Iterator

import polars as pl

from cellvim.ingest.sources import some
from cellvim.store.quality import FLAGS
from cellvim.store.statistics import PlateStatistics


def describe_pixels(statistics: PlateStatistics) -> list[str]:
    """Name copies of one plane, suspicious planes by what is suspicious, and odd ways to store values."""
    return [*_copies(statistics.fields), *_flagged(statistics.quality), *_encodings(statistics)]


def _copies(fields: pl.DataFrame) -> Iterator[str]:
    """No camera takes the same picture twice: a file was copied under another name."""
    groups = (
        fields.filter("is_valid")
        .with_columns(plane=_names())
        .group_by("pixels_sha256", maintain_order=True)
        .agg("plane")
        .filter(pl.col("plane").list.len() > 1)["plane"]
        .to_list()
    )
    if groups:
        first = some([" = ".join(group[:4]) for group in groups])
        yield f"{sum(map(len, groups))} planes have the pixels of another: {first}"


def _flagged(quality: pl.DataFrame) -> Iterator[str]:
    flagged = quality.with_columns(plane=_names()).explode(FLAGS).drop_nulls(FLAGS)
    for (flag,), rows in flagged.group_by(FLAGS, maintain_order=True):
        count = "1 plane is" if rows.height == 1 else f"{rows.height} planes are"
        yield f"{count} {flag}: {some(rows['plane'].to_list(), 6)} (see qc.html)"


def _encodings(statistics: PlateStatistics) -> Iterator[str]:
    by_note: dict[str, list[str]] = {}
    for channel, encoding in statistics.encodings.items():
        if encoding.note:
            by_note.setdefault(encoding.note, []).append(channel)
    for note, channels in by_note.items():
        yield f"{', '.join(channels)}: {note}"


def _names() -> pl.Expr:
    return pl.format("{}/{} {}", "Metadata_Well", "Metadata_Site", "channel")
