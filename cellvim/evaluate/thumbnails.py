"""Pictures of wells, which `cellvim embed` writes beside its table."""

from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import polars as pl

from cellvim.errors import InputError
from cellvim.profiles import thumbnails_files
from cellvim.profiles.schema import PLATE, WELL

COLUMNS = [PLATE, WELL, "png"]
ROOM_BYTES = 3_700_000
"""What the pictures of a page may take, before they are written as text, which makes them a third larger."""
JPEG_LEVEL = 80
# A picture of 96 pixels side shrinks at least so much, so no more need to be read.
MOST_SHRINKING = 12


def read_thumbnails(table: Path, wells: pl.DataFrame, room_bytes: int = ROOM_BYTES) -> pl.DataFrame | None:
    """Pictures of some wells: `Metadata_Plate`, `Metadata_Well`, `png`; None where the table has none.

    If they do not fit as they are, all of them are written as JPEG, and the last ones go.

    Args:
        table: Profile table that the pictures lie beside, or folder of tables.
        wells: `Metadata_Plate`, `Metadata_Well` of those to read, the most wanted first.
        room_bytes: What all pictures together may take.

    Raises:
        InputError: The file cannot be read, or lacks a column.
    """
    paths = thumbnails_files(table)
    if not paths:
        return None
    try:
        found = _read(paths, wells, room_bytes)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{', '.join(map(str, paths[:2]))} cannot be read as pictures of wells: {reason}"
        raise InputError(message, hint="write it again with `cellvim embed`, or move it away") from error
    if found["png"].bin.size().sum() > room_bytes:
        kept = list(_that_fit(found["png"], room_bytes))
        found = found.head(len(kept)).with_columns(pl.Series("png", kept, pl.Binary))
    return found.sort(PLATE, WELL)


def _read(paths: list[Path], wells: pl.DataFrame, room_bytes: int) -> pl.DataFrame:
    """Read wanted pictures in the order wanted, as many as could fit if they shrink as far as they can."""
    stored = pl.scan_parquet(paths).select(pl.col(PLATE, WELL).cast(pl.String), pl.col("png").cast(pl.Binary))
    sizes = stored.select(PLATE, WELL, pl.col("png").bin.size().alias("size")).collect(engine="streaming")
    sizes = sizes.unique([PLATE, WELL], keep="first", maintain_order=True)
    wanted = wells.select(PLATE, WELL).join(sizes, on=[PLATE, WELL], maintain_order="left")
    wanted = wanted.filter(pl.col("size").cum_sum() <= MOST_SHRINKING * room_bytes)
    pictures = stored.join(wanted.lazy(), on=[PLATE, WELL], how="semi").collect(engine="streaming")
    pictures = pictures.unique([PLATE, WELL], keep="first", maintain_order=True)
    return wanted.join(pictures, on=[PLATE, WELL], maintain_order="left").select(COLUMNS)


def _that_fit(pictures: pl.Series, room_bytes: int) -> Iterator[bytes]:
    """Yield pictures as JPEG until the room is used up."""
    for picture in pictures:
        smaller = as_jpeg(picture)
        room_bytes -= len(smaller)
        if room_bytes < 0:
            return
        yield smaller


def as_jpeg(picture: bytes) -> bytes:
    """Write a PNG as JPEG; what is none stays as it is."""
    try:
        pixels = imagecodecs.png_decode(picture)
    except ValueError:
        return picture
    written = bytes(imagecodecs.jpeg8_encode(pixels, level=JPEG_LEVEL, subsampling="444"))
    return written if len(written) < len(picture) else picture
