"""Finished plates, kept beside the output until all are done, so that an interrupted run goes on after them."""

import ctypes
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cellvim.config import EmbedSettings
from cellvim.dataset import measured_waiting
from cellvim.embed.blocks import table_of_block
from cellvim.embed.inputs import PlateFacts
from cellvim.embed.plate import EmbeddedPlate, embed_plate
from cellvim.embed.writer import identity_of_table, join_tables, read_metadata, write_table
from cellvim.model import ChannelEncoder
from cellvim.profiles import thumbnails_path
from cellvim.progress import Advance
from cellvim.store import PlateReader

logger = logging.getLogger(__name__)

BOOKS = ("failed", "skipped", "left_out", "empty")


@dataclass(frozen=True)
class Part:
    """The table of one plate, to be made or made.

    Attributes:
        plate: The plate.
        path: Where its table lies; its thumbnails lie beside it.
        identity: Hash of the settings, the weights and the plate.
    """

    plate: PlateFacts
    path: Path
    identity: str

    @property
    def is_done(self) -> bool:
        """Whether it is there, and made from just this; a part is written after its thumbnails."""
        return self.path.exists() and identity_of_table(self.path) == self.identity


@dataclass(frozen=True)
class Recipe:
    """How every plate of a run is embedded.

    Attributes:
        settings: Of the run.
        tile_px: Side of a tile.
        kernels: What computes, as the parts shall say.
    """

    settings: EmbedSettings
    tile_px: int
    kernels: str


@dataclass(frozen=True)
class Books:
    """What the parts of a run say about themselves, added up."""

    embedded: int = 0
    """Wells that have a row."""
    lost: Mapping[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in BOOKS})
    """What is not in the table, and why: `failed`, `skipped`, `left_out`, `empty`."""
    tallies: Mapping[str, int] = field(default_factory=dict)
    """Tiles or objects, and how many of them were dropped."""
    kernels: tuple[str, ...] = ()
    seconds: float = 0.0
    waiting_s: float = 0.0
    """Of the seconds, those for which the encoder waited for pixels."""


def make_part(part: Part, encoder: ChannelEncoder, recipe: Recipe, *, advance: Advance) -> None:
    """Embed a plate and write its part.

    Args:
        part: What to write, and of which plate.
        encoder: Model in evaluation mode, on the device that computes.
        recipe: How.
        advance: Called once per field.
    """
    started = time.perf_counter()
    with measured_waiting() as waiting:
        # Opened here and dropped with the end of this function: a plate that was read keeps thousands of open arrays.
        plate = PlateReader(part.plate.address)
        embedded = embed_plate(plate, encoder, recipe.settings, tile_px=recipe.tile_px, advance=advance)
    seconds = time.perf_counter() - started
    _write_part(part, embedded, {"kernels": recipe.kernels, "seconds": seconds, "waiting_s": waiting.seconds})
    _return_memory()
    logger.info(
        "plate %s: %d wells embedded, %d failed, %.0f s, %.0f %% of it waiting for pixels",
        plate.name,
        embedded.well_count,
        len(embedded.failed),
        seconds,
        100 * waiting.seconds / seconds,
    )


def read_books(parts: Sequence[Part]) -> Books:
    """Add up what the parts say, without reading their rows."""
    stored = [read_metadata(part.path) for part in parts]
    return Books(
        embedded=sum(each["embedded"] for each in stored),
        lost=lost_in(stored),
        tallies=_added([each["tallies"] for each in stored]),
        kernels=tuple(sorted({each["kernels"] for each in stored})),
        seconds=sum(each["seconds"] for each in stored),
        waiting_s=sum(each["waiting_s"] for each in stored),
    )


def _added(tallies: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Sum by name; what was counted and is 0 stays."""
    total: Counter[str] = Counter()
    for each in tallies:
        total.update(each)
    return dict(total)


def lost_in(stored: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """What tables say is not in them, and why."""
    return {
        name: {where: why for each in stored for where, why in each.get(name, {}).items()} for name in BOOKS
    }


def join_parts(
    parts: Sequence[Part], out: Path, provenance: Mapping[str, Any], *, block: int | None = None
) -> None:
    """Write the rows of all parts as one table; the thumbnails first, as the table's presence says all is done.

    Args:
        parts: In the order of the table.
        out: Table to write.
        provenance: What it says about itself.
        block: The block of the encoder whose features are wanted, where parts hold those of several.
    """
    join_tables(thumbnails_path(out), [thumbnails_path(part.path) for part in parts], {})
    take = (lambda table: table) if block is None else partial(table_of_block, block=block)
    join_tables(out, [part.path for part in parts], provenance, take=take)


def _return_memory() -> None:
    """Let the C library give back what it keeps of freed memory: it kept 4 MiB more with every plate."""
    with suppress(OSError, AttributeError):  # only that of GNU can be asked to
        ctypes.CDLL(None).malloc_trim(0)


def _write_part(part: Part, embedded: EmbeddedPlate, facts: Mapping[str, Any]) -> None:
    write_table(thumbnails_path(part.path), embedded.thumbnails, {})
    books = {name: getattr(embedded, name) for name in (*BOOKS, "tallies")}
    metadata = {"identity": part.identity, "embedded": embedded.well_count, **books, **facts}
    write_table(part.path, embedded.table, metadata)
