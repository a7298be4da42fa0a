"""What a report must be compared with: plain intensity statistics, and features that a biologist would measure."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Bool, Int, UInt8, UInt16
from numpy import ndarray
from scipy import ndimage
from skimage import feature, filters, measure, segmentation

from cellvim.atomic import write_parquet
from cellvim.store import PlateReader
from cellvim.store.platemap import join_platemap

Pixels = UInt8[ndarray, "channel y x"] | UInt16[ndarray, "channel y x"]
Features = dict[str, float]
Measure = Callable[[Pixels, tuple[str, ...]], Features]

PERCENTILES = (1, 10, 50, 90, 99)
SMOOTHING_PX = 1.5
SMALLEST_NUCLEUS_PX = 60
NUCLEUS_SPACING_PX = 6
RING_GAP_PX = 2
RING_PX = 6
GREY_LEVELS = 32


def write_baseline_table(plate: PlateReader, measure_field: Measure, path: Path) -> pl.DataFrame:
    """Measure every field of a plate, average over the fields of a well, and write the table of the contract.

    Args:
        plate: The plate, with its plate map joined at ingest.
        measure_field: Function of (pixels, channel names) to named numbers.
        path: Parquet file to write.
    """
    rows = [
        {"Metadata_Plate": plate.name, "Metadata_Well": field.well}
        | measure_field(plate.read_field(field), plate.channels)
        for field in plate.fields
    ]
    keys = ["Metadata_Plate", "Metadata_Well"]
    table = pl.DataFrame(rows).group_by(keys, maintain_order=True).mean()
    if plate.platemap is not None:
        table = join_platemap(table, plate.platemap)
    features = [name for name in table.columns if not name.startswith("Metadata_")]
    metadata = [name for name in table.columns if name.startswith("Metadata_")]
    ordered = table.select(*metadata, pl.col(features).cast(pl.Float32))
    write_parquet(path, ordered)
    return ordered


def intensity_statistics(pixels: Pixels, channels: tuple[str, ...]) -> Features:
    """Mean, standard deviation and percentiles of each channel, raw units: no notion of a cell."""
    features = {}
    for name, plane in zip(channels, pixels, strict=True):
        features[f"{name}_mean"] = float(plane.mean())
        features[f"{name}_sd"] = float(plane.std())
        for share, value in zip(PERCENTILES, np.percentile(plane, PERCENTILES), strict=True):
            features[f"{name}_p{share:02d}"] = float(value)
    return features


def translocation_features(pixels: Pixels, channels: tuple[str, ...]) -> Features:
    """Measure nuclei, the protein inside and around them, and the protein's texture.

    The median nucleus stands for the field. A field without nuclei has a count of 0, and NaN elsewhere.

    Args:
        pixels: Field with the nuclear stain named ``DNA`` and one other channel, the protein.
        channels: Names of the channels.
    """
    dna = pixels[channels.index("DNA")].astype(np.float64)
    protein = pixels[1 - channels.index("DNA")].astype(np.float64)
    nuclei = segment_nuclei(dna)
    ring = rings_around(nuclei)
    shape = _shape_features(nuclei, dna)
    location = _location_features(nuclei, ring, protein)
    inside = (nuclei > 0) | (ring > 0)
    return shape | location | _texture_features(protein, dna, inside)


def segment_nuclei(dna: ndarray) -> Int[ndarray, "y x"]:
    """Label nuclei from 1: Otsu threshold on the smoothed stain, touching nuclei split by their distance to the edge."""
    smooth = filters.gaussian(dna, SMOOTHING_PX, preserve_range=True)
    if smooth.max() <= smooth.min():
        return np.zeros(dna.shape, np.int32)
    bright = ndimage.binary_fill_holes(smooth > filters.threshold_otsu(smooth))
    depth = filters.gaussian(ndimage.distance_transform_edt(bright), 1.0)
    peaks = feature.peak_local_max(depth, min_distance=NUCLEUS_SPACING_PX, labels=measure.label(bright))
    seeds = np.zeros(dna.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = segmentation.watershed(-depth, seeds, mask=bright)
    large = np.bincount(labels.ravel()) >= SMALLEST_NUCLEUS_PX
    large[0] = False
    return np.asarray(segmentation.relabel_sequential(labels * large[labels])[0])


def rings_around(nuclei: Int[ndarray, "y x"]) -> Int[ndarray, "y x"]:
    """Label the cytoplasm next to each nucleus: a ring, a small gap away, that enters no other nucleus."""
    outer = segmentation.expand_labels(nuclei, RING_GAP_PX + RING_PX)
    inner = segmentation.expand_labels(nuclei, RING_GAP_PX)
    return np.asarray(np.where(inner > 0, 0, outer))


def _shape_features(nuclei: Int[ndarray, "y x"], dna: ndarray) -> Features:
    regions = measure.regionprops(nuclei, intensity_image=dna)
    background = float(np.percentile(dna, 5))
    mean = np.array([region.intensity_mean for region in regions]) - background
    deviation = np.array([dna[nuclei == region.label].std() for region in regions])
    return {
        "nuclei_count": float(len(regions)),
        "nuclear_area": _median([region.area for region in regions]),
        "nuclear_eccentricity": _median([region.eccentricity for region in regions]),
        "nuclear_solidity": _median([region.solidity for region in regions]),
        "nuclear_dna_mean": _median(mean),
        "nuclear_dna_variation": _median(deviation / np.maximum(mean, 1)),
    }


def _location_features(nuclei: Int[ndarray, "y x"], ring: Int[ndarray, "y x"], protein: ndarray) -> Features:
    labels = np.intersect1d(nuclei[nuclei > 0], ring[ring > 0])
    background = float(np.percentile(protein, 1))
    inner = ndimage.mean(protein, nuclei, labels) - background
    outer = ndimage.mean(protein, ring, labels) - background
    # One grey level is the smallest step of the camera: it keeps the logarithm of dark cells finite.
    ratio = np.log2((np.maximum(inner, 0) + 1) / (np.maximum(outer, 0) + 1))
    return {
        "protein_nuclear_mean": _median(inner),
        "protein_ring_mean": _median(outer),
        "protein_nuclear_ratio": _median(ratio),
        "protein_nuclear_ratio_spread": float(ratio.std()) if ratio.size else float("nan"),
        "protein_nuclear_share": float((ratio > 0).mean()) if ratio.size else float("nan"),
    }


def _texture_features(protein: ndarray, dna: ndarray, inside: Bool[ndarray, "y x"]) -> Features:
    """Haralick texture of the protein, its fine grain, and its correlation with DNA around nuclei."""
    top = max(float(np.percentile(protein, 99.8)), 1.0)
    levels = np.clip(protein / top * (GREY_LEVELS - 1), 0, GREY_LEVELS - 1).astype(np.uint8)
    matrix = feature.graycomatrix(
        levels, [2], [0, np.pi / 2], levels=GREY_LEVELS, symmetric=True, normed=True
    )
    haralick = {
        f"protein_{name}": float(feature.graycoprops(matrix, name).mean())
        for name in ("contrast", "homogeneity", "energy")
    }
    fine = protein - filters.gaussian(protein, 2.0, preserve_range=True)
    pair = np.stack([protein[inside], dna[inside]])
    is_varied = pair.size > 0 and bool((pair.std(1) > 0).all())
    return haralick | {
        "protein_grain": float(fine.std() / max(float(protein.std()), 1e-9)),
        "protein_dna_correlation": float(np.corrcoef(pair)[0, 1]) if is_varied else float("nan"),
    }


def _median(values: ndarray | list[float]) -> float:
    return float(np.median(values)) if len(values) else float("nan")
