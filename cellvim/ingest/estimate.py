"""Foresee size and time of a plate from a few of its planes, decoded and encoded as ingest will."""

import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cellvim.config import IngestSettings
from cellvim.errors import DiskError
from cellvim.ingest.images import read_plane
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.planes import ChannelPlan
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.quality import measure_plane
from cellvim.ingest.sources import ImagePart
from cellvim.store.arrays import encode_array
from cellvim.store.intensity import histograms_of, pack_histograms
from cellvim.store.layout import PLATE_SUFFIX
from cellvim.store.place import LocalPlace, open_place
from cellvim.store.records import plane_sha256

# Planes that are tried, and when the last of them is begun.
MOST_PLANES = 24
BUDGET_SECONDS = 1.0
# An estimate this much larger than the free space is wrong by more than plates differ within themselves.
CLEARLY = 1.5
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Estimate:
    """What writing a plate will take.

    Attributes:
        bytes_out: Compressed pixels, of the whole plate.
        seconds: Decoding, measuring and encoding, with the workers of the settings; the disk's waits come on top.
        planes: Number of planes that were tried.
        damaged: Planes that turned out to be damaged on the way, one line each.
    """

    bytes_out: int
    seconds: float
    planes: int
    damaged: tuple[str, ...] = ()


def estimate(check: Preflight, settings: IngestSettings) -> Estimate | None:
    """Decode, measure and encode planes spread over the plate, for about a second.

    Returns:
        None where not one plane could be tried.
    """
    wanted = [part for plan in check.fields for part in plan.channels if part.images]
    chosen = _spread(wanted, MOST_PLANES)
    trial = _Trial(settings, deadline=time.monotonic() + BUDGET_SECONDS)
    with ThreadPoolExecutor(settings.workers) as pool:
        results = list(pool.map(trial, chosen))
    samples = [result for result in results if isinstance(result, _Sample)]
    damaged = tuple(result for result in results if isinstance(result, str))
    if not samples:
        return None
    images = sum(len(part.images) for part in wanted)
    decoding = sum(sample.decode_seconds for sample in samples) / len(samples) * images
    encoding = sum(sample.encode_seconds for sample in samples) / len(samples) * len(wanted)
    ratio = sum(sample.bytes_out for sample in samples) / sum(sample.bytes_raw for sample in samples)
    at_once = min(settings.workers, max(1, len(check.fields)))
    return Estimate(
        bytes_out=round(ratio * raw_bytes(check)),
        seconds=round((decoding + encoding) / at_once, 1),
        planes=len(samples),
        damaged=damaged,
    )


def raw_bytes(check: Preflight) -> int:
    """Size of the plate's pixels without compression; filled planes shrink to nothing."""
    planes = sum(bool(part.images) for plan in check.fields for part in plan.channels)
    height, width = check.shape
    return planes * height * width * check.dtype.itemsize


def free_bytes(out: Path | str) -> int | None:
    """Free space where a folder is, or will be; None in an object store, which does not say."""
    place = open_place(out)
    if not isinstance(place, LocalPlace):
        return None
    folder = place.path.absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def refuse_full_disk(checks: Sequence[Preflight], settings: IngestSettings) -> None:
    """Stop before anything is written that the disk clearly has no room for.

    Nothing is tried as long as even the uncompressed pixels fit. What an earlier run has written counts as room.

    Raises:
        DiskError: The plates need more than 1.5 times the space there is.
    """
    free = free_bytes(settings.out)
    if free is None or sum(map(raw_bytes, checks)) <= free:
        return
    room = free + sum(_written_bytes(check, settings) for check in checks)
    guesses = [guess for check in checks if (guess := estimate(check, settings))]
    needed = sum(guess.bytes_out for guess in guesses)
    if needed > CLEARLY * room:
        found = f"{settings.out} has {as_size(room)} of room; the plates will need about {as_size(needed)}"
        raise DiskError(found, hint="free some space, or choose another --out; nothing was written")


def as_size(count: int) -> str:
    """Bytes for people: ``1,234.5 MB``."""
    return f"{count / 1e6:,.1f} MB" if count < 1e10 else f"{count / 1e9:,.1f} GB"


def _written_bytes(check: Preflight, settings: IngestSettings) -> int:
    place = open_place(settings.out).at(f"{check.plate.name}{PLATE_SUFFIX}")
    assert isinstance(place, LocalPlace), "only asked where the output is a folder"  # noqa: S101
    return sum(path.stat().st_size for path in place.path.rglob("*") if path.is_file())


def _spread(parts: Sequence[ChannelPlan], most: int) -> list[ChannelPlan]:
    """Some of many, spread evenly however early the time is over: each falls into the widest gap so far."""
    if len(parts) <= most:
        return list(parts)
    return [parts[int(len(parts) * (number * _GOLDEN % 1))] for number in range(most)]


@dataclass(frozen=True)
class _Sample:
    decode_seconds: float
    encode_seconds: float
    bytes_raw: int
    bytes_out: int


class _Trial:
    """Does what ingest will do with one plane of a channel, as long as there is time.

    The first plane is done twice: it pays for what is loaded only once.
    """

    def __init__(self, settings: IngestSettings, *, deadline: float) -> None:
        self.settings = settings
        self.deadline = deadline
        self._is_warm = False
        self._warming = threading.Lock()

    def __call__(self, part: ChannelPlan) -> _Sample | str | None:
        """Measure a plane; say what is wrong with it; or nothing once the time is over."""
        image = part.images[len(part.images) // 2]
        try:
            first = self._warm_up(image)
            return self._measure(image) if time.monotonic() < self.deadline else first
        except DamagedImageError as error:
            return f"{image.name} {error.found}"

    def _warm_up(self, image: ImagePart) -> _Sample | None:
        with self._warming:
            if self._is_warm:
                return None
            first = self._measure(image)
            self._is_warm = True
            return first

    def _measure(self, image: ImagePart) -> _Sample:
        started = time.perf_counter()
        pixels = read_plane(image).pixels
        decoded = time.perf_counter()
        measure_plane(pixels)
        plane_sha256(pixels)
        pack_histograms(histograms_of(pixels[None]))
        files = encode_array(pixels[None], codec=self.settings.codec)
        encoded = time.perf_counter()
        return _Sample(decoded - started, encoded - decoded, pixels.nbytes, sum(map(len, files.values())))
