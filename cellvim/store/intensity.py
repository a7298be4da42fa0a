"""What ingest learned about grey values, from exact histograms: percentiles of a plate, moments of a field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numcodecs.zstd
import numpy as np
from numpy.typing import NDArray

from cellvim.store.naming import FieldKey
from cellvim.store.place import Place
from cellvim.store.records import load_json, load_table

PERCENTILES = (0.1, 1.0, 50.0, 99.0, 99.9)
CLIP_KEYS = ("0.1", "99.9")
INTENSITY_FILE = "intensity.json"
FIELDS_FILE = "field_intensity.parquet"

Counts = NDArray[np.int64]

_COUNTED_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Intensity:
    """Grey-value statistics of one plate.

    Attributes:
        channels: Stain names, in the order of the arrays.
        percentiles: Channel to percentile (``"0.1" "1" "50" "99" "99.9"``) to value, raw units, over all
            pixels of the plate except filled planes.
    """

    channels: tuple[str, ...]
    percentiles: Mapping[str, Mapping[str, float]]
    _moments: Mapping[FieldKey, NDArray[np.float64]]

    @classmethod
    def load(cls, companion: Place) -> "Intensity":
        content = load_json(companion, INTENSITY_FILE)
        channels = tuple(content["channels"])
        table = load_table(companion, FIELDS_FILE)
        keys = table.select("Metadata_Well", "Metadata_Site").iter_rows()
        pairs = table.select("mean", "std").to_numpy().reshape(-1, len(channels), 2)
        fields = [FieldKey(well, site) for well, site in keys][:: len(channels)]
        return cls(channels, content["percentiles"], dict(zip(fields, pairs, strict=True)))

    def clip_bounds(self, channel: str) -> tuple[float, float]:
        """The 0.1th and 99.9th percentile of the plate: beyond them lie dust, dead pixels and saturation."""
        low, high = (self.percentiles[channel][key] for key in CLIP_KEYS)
        return low, high

    def moments(self, field: FieldKey) -> NDArray[np.float64]:
        """Mean and standard deviation of the whole field after clipping at `clip_bounds`.

        Returns:
            Shape (channels, 2), raw units, exact. A filled plane has the moments of its zeros.
        """
        return self._moments[field]


def percentiles_of(counts: Counts, shares: Sequence[float] = PERCENTILES) -> dict[str, float]:
    """Percentiles of all the pixels behind a histogram, equal to `numpy.percentile` of those pixels."""
    population = int(counts.sum())
    cumulative = np.cumsum(counts)
    values = {}
    for share in shares:
        rank = share / 100 * (population - 1)
        below = int(rank)
        low, high = np.searchsorted(cumulative, [below, min(below + 1, population - 1)], side="right")
        values[f"{share:g}"] = float(low + (high - low) * (rank - below))
    return values


def clipped_moments(counts: Counts, bounds: tuple[float, float]) -> tuple[float, float]:
    """Mean and population standard deviation of the pixels behind a histogram, clipped at `bounds`."""
    values = np.clip(np.arange(counts.size, dtype=np.float64), *bounds)
    weights = counts / counts.sum()
    # einsum without `optimize` calls no BLAS, whose sums depend on its number of threads.
    mean = float(np.einsum("i,i->", weights, values))
    values -= mean
    return mean, float(np.sqrt(np.einsum("i,i,i->", weights, values, values)))


def histograms_of(pixels: NDArray[np.unsignedinteger]) -> Counts:
    """Count every grey value of every channel.

    Returns:
        (c, y, x) pixels to (c, largest value of all + 1) counts.
    """
    counts = np.zeros((len(pixels), int(pixels.max()) + 1), dtype=np.int64)
    for plane, total in zip(pixels, counts, strict=True):
        values = plane.ravel()
        # Parts, as bincount first makes 8 bytes of every value: these stay in the cache.
        for start in range(0, values.size, _COUNTED_AT_ONCE):
            found = np.bincount(values[start : start + _COUNTED_AT_ONCE])
            total[: found.size] += found
    return counts


def pack_histograms(counts: Counts) -> bytes:
    """Shrink histograms for the companion; no plane has more than 2**32 pixels."""
    return bytes(numcodecs.zstd.compress(counts.astype("<u4").tobytes(), level=1))


def unpack_histograms(content: bytes, channels: Sequence[str]) -> Counts:
    return (
        np.frombuffer(numcodecs.zstd.decompress(content), dtype="<u4")
        .reshape(len(channels), -1)
        .astype(np.int64)
    )
