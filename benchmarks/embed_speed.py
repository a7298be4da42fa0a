"""Tiles a second: reading alone, encoding alone, and both, as embed does it."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.embed_plates import TILE_PX, make_encoder
from benchmarks.findings import Cell, Table
from benchmarks.timing import Failure, Timing, interleaved
from cellvim.config import EmbedSettings, Preset
from cellvim.dataset import measured_waiting, prefetched
from cellvim.embed.cutting import Cutting
from cellvim.embed.encode import FieldEncoder
from cellvim.embed.fields import TiledField, tile_field
from cellvim.embed.plate import embed_plate
from cellvim.model import ChannelEncoder
from cellvim.store import PlateReader


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        preset: Model.
        batch_size: Tiles per forward pass.
        plate: What is embedded in one turn.
    """

    preset: Preset
    batch_size: int
    plate: Path


@dataclass
class Speed:
    """What one case gave."""

    tiles: int
    encoding: Timing | Failure
    both: Timing | Failure
    waiting: list[float] = field(default_factory=list)
    """Of each turn of both, the share for which the encoder waited for pixels."""

    @property
    def tiles_per_s(self) -> float | None:
        return self.tiles / (self.both.median / 1000) if isinstance(self.both, Timing) else None


def reading_table(plate: Path, readers: Sequence[int], *, turns: int, seconds: float) -> tuple[Table, float]:
    """Time reading, decompressing and normalising alone.

    Returns:
        The table, and the most fields per second.
    """
    reader = PlateReader(plate)
    settings = _settings(plate, 1)
    cutting = Cutting.of_plate(reader, settings, TILE_PX)

    def read_all(threads: int) -> int:
        fields = prefetched(
            lambda key: tile_field(reader, key, cutting, needs_all=False), reader.fields, ahead=threads
        )
        return sum(len(tiled.cut.corners) for tiled in fields)

    cases = {str(threads): (lambda threads=threads: read_all(threads)) for threads in readers}
    found = interleaved(cases, torch.device("cpu"), turns=turns, seconds=seconds, warm_up=1, fewest=3)
    height, width = reader.shape(reader.fields[0])
    megabytes = len(reader.fields) * len(reader.channels) * height * width * reader.dtype.itemsize / 1e6
    tiles = read_all(max(readers))
    rows: list[list[Cell]] = []
    best = 0.0
    for threads, timing in found.items():
        if isinstance(timing, Failure):
            rows.append([threads, timing.reason, None, None])
            continue
        best = max(best, 1000 * len(reader.fields) / timing.median)
        rows.append(
            [threads, _rate(len(reader.fields), timing), _rate(megabytes, timing), _rate(tiles, timing)]
        )
    title = (
        f"Reading alone: fields of {height} x {width}, {len(reader.channels)} channels, from the page cache"
    )
    return Table(title, ("threads", "fields/s", "MB of pixels/s", "tiles/s"), rows), best


def measure_speed(
    cases: Sequence[Case], device: torch.device, *, readers: int, turns: int, seconds: float
) -> dict[Case, Speed]:
    """Time encoding alone and both, in turns, model after model.

    Args:
        cases: What to time.
        device: Where to compute.
        readers: Threads that read ahead.
        turns: Timed turns of each.
        seconds: Of each case; fewer turns if these are up, but three.
    """
    found = {}
    for case in cases:
        encoder = make_encoder(case.preset).to(device)
        found[case] = _measure(case, encoder, device, readers=readers, turns=turns, seconds=seconds)
        del encoder
    return found


def speed_table(found: dict[Case, Speed], device: torch.device) -> Table:
    columns = ("model", "batch", "tiles a turn", "encoding alone, tiles/s", "both, tiles/s", "waiting share")
    rows: list[list[Cell]] = []
    for case, speed in found.items():
        waiting: Cell = None
        if speed.waiting:
            low, high = min(speed.waiting), max(speed.waiting)
            waiting = f"{statistics.median(speed.waiting):.0%} ({low:.0%} to {high:.0%})"
        rates = [_rate(speed.tiles, timing) for timing in (speed.encoding, speed.both)]
        rows.append([case.preset, case.batch_size, speed.tiles, *rates, waiting])
    return Table(f"Embedding on {device.type}: medians, in brackets the quartiles", columns, rows)


def _measure(
    case: Case,
    encoder: ChannelEncoder,
    device: torch.device,
    *,
    readers: int,
    turns: int,
    seconds: float,
) -> Speed:
    plate = PlateReader(case.plate)
    settings = _settings(case.plate, case.batch_size, readers=readers)
    cutting = Cutting.of_plate(plate, settings, TILE_PX)
    ready = [tile_field(plate, key, cutting, needs_all=False) for key in plate.fields]
    waiting: list[float] = []
    timings = interleaved(
        {
            "encoding": lambda: _encode(encoder, plate, settings, ready),
            "both": lambda: waiting.append(_waiting_share(plate, encoder, settings)),
        },
        device,
        turns=turns,
        seconds=seconds,
        warm_up=1,
        fewest=3,
    )
    tiles = sum(len(tiled.cut.corners) for tiled in ready)
    return Speed(tiles, timings["encoding"], timings["both"], waiting[1:])


def _encode(
    encoder: ChannelEncoder, plate: PlateReader, settings: EmbedSettings, ready: Sequence[TiledField]
) -> None:
    with torch.inference_mode():
        for _ in FieldEncoder(encoder, plate, settings).encode(ready):
            pass


def _waiting_share(plate: PlateReader, encoder: ChannelEncoder, settings: EmbedSettings) -> float:
    started = time.perf_counter()
    with measured_waiting() as waiting:
        embed_plate(plate, encoder, settings, tile_px=TILE_PX, advance=lambda _units=1: None)
    return waiting.seconds / (time.perf_counter() - started)


def _settings(plate: Path, batch_size: int, *, readers: int = 1) -> EmbedSettings:
    content = {"plates": [plate], "model": "model", "out": "e.parquet", "readers": readers}
    return EmbedSettings.checked({**content, "batch_size": batch_size})


def _rate(count: float, timing: Timing | Failure) -> str:
    if isinstance(timing, Failure):
        return timing.reason
    median, low, high = (1000 * count / value for value in (timing.median, timing.high, timing.low))
    return f"{_shown(median)} ({_shown(low)} to {_shown(high)})"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
