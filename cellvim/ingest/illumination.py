"""How evenly each channel is lit, learned from the plate's own images before any of them is written."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from cellvim.config import IngestSettings
from cellvim.errors import UsageError
from cellvim.ingest.planes import FieldPlan
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.projection import read_projection
from cellvim.progress import progress_bar
from cellvim.store.illumination import FlatField, Illumination

logger = logging.getLogger(__name__)

# As many as average out where the cells lie; more only take longer.
MOST_FIELDS = 200
FEWEST_FIELDS = 20
# Illumination varies slowly: a grid of this many bins along the longer side holds all of it.
_BINS = 128
# Share of the brightest planes that a place is judged without, and of the darkest.
_EXTREME = 1 / 5
# Of the smoothing, as a share of the image's longer side: wider than cells, narrower than a vignette.
_SMOOTHING = 1 / 16
# What lies beyond is no illumination but a blocked light path, and dividing by it would blow up noise.
_DARKEST, _BRIGHTEST = 0.1, 10.0

Bins = NDArray[np.uint32]
Shading = NDArray[np.float64]


def learn_illumination(check: Preflight, settings: IngestSettings) -> Illumination | None:
    """Learn what the writer of a plate needs to correct its illumination; None if that is not asked for."""
    if settings.illumination == "none":
        return None
    return Illumination(estimate_flat_field(check, settings), is_baked=settings.illumination == "baked")


def estimate_flat_field(check: Preflight, settings: IngestSettings) -> FlatField:
    """Learn the flat-field of every channel from up to 200 fields, spread evenly over the plate.

    ``mean``: at each place the mean of the middle three fifths of these planes, each projected as it will be stored,
    so that neither a saturated plane nor a cell here and there counts; then smoothed with a Gaussian of a sixteenth
    of the image's side. ``basic``: BaSiC (Peng et al. 2017, doi:10.1038/ncomms14836), by `basicpy`. Both
    see planes in bins of whole pixels, at most 128 to a side. Planes that cannot be read do not count.

    The mean is of whole numbers, so neither the number of workers nor their order changes a bit of it.

    Returns:
        Axes (c, y, x), mean 1 in every channel.

    Raises:
        UsageError: ``basic`` is asked for and `basicpy` is not installed.
    """
    fit: Callable[[Sequence[Bins]], Shading]
    fit = _basic if settings.illumination_method == "basic" else _smoothed_mean
    if settings.illumination_method == "basic":
        _refuse_without_basicpy()
    plans = sample(check.fields)
    bin_px = max(1, -(-max(check.shape) // _BINS))
    flats = []
    for number, stain in enumerate(check.stains.values()):
        stack = _read_binned(plans, number, bin_px, check, settings)
        if len(stack) < FEWEST_FIELDS:
            few = "%s: the flat-field of %s rests on %d images; cells may show in it"
            logger.warning(few, check.plate.name, stain, len(stack))
        shading: Shading = fit(stack) if stack else np.zeros((1, 1))
        flats.append(_enlarge(shading, bin_px, check.shape))
    return np.stack(flats)


def sample(fields: Sequence[FieldPlan]) -> list[FieldPlan]:
    """All fields, or 200 of them at even distances in the order of wells."""
    if len(fields) <= MOST_FIELDS:
        return list(fields)
    return [fields[number * len(fields) // MOST_FIELDS] for number in range(MOST_FIELDS)]


def _read_binned(
    plans: Sequence[FieldPlan], channel: int, bin_px: int, check: Preflight, settings: IngestSettings
) -> list[Bins]:
    """Planes of one channel, summed in bins; those that can be read, in the order of the plans."""

    def read(plan: FieldPlan) -> Bins | None:
        plane = read_projection(plan.channels[channel], check, settings).plane
        return None if plane is None else _binned(plane, bin_px)

    label = f"illumination {check.plate.name}"
    with ThreadPoolExecutor(settings.workers) as pool, progress_bar(label, total=len(plans)) as advance:
        stack = []
        for plane in pool.map(read, plans):
            advance()
            if plane is not None:
                stack.append(plane)
    return stack


def _binned(plane: NDArray[np.unsignedinteger], bin_px: int) -> Bins:
    """Sums over squares of pixels; what is left over at the right and lower edge does not count."""
    rows, columns = (side // bin_px for side in plane.shape)
    squares = plane[: rows * bin_px, : columns * bin_px].reshape(rows, bin_px, columns, bin_px)
    sums: Bins = squares.sum(axis=(1, 3), dtype=np.uint32)
    return sums


def _smoothed_mean(stack: Sequence[Bins]) -> Shading:
    extreme = int(len(stack) * _EXTREME)
    middle = np.sort(np.stack(stack), axis=0)[extreme : len(stack) - extreme]
    total = middle.sum(axis=0, dtype=np.uint64)
    spread = max(total.shape) * _SMOOTHING
    margin = int(3 * spread)
    # Mirrored through the edge's own value, so that a slope goes on instead of bending flat.
    wide = np.pad(total.astype(np.float64), margin, mode="reflect", reflect_type="odd")
    smooth: Shading = scipy.ndimage.gaussian_filter(wide, spread, truncate=3)
    return smooth[margin:-margin, margin:-margin] if margin else smooth


def _basic(stack: Sequence[Bins]) -> Shading:
    from basicpy import BaSiC

    model = BaSiC(get_darkfield=False)
    model.fit(np.stack(stack).astype(np.float32))
    return np.asarray(model.flatfield, dtype=np.float64)


def _refuse_without_basicpy() -> None:
    if find_spec("basicpy") is None:
        found = "the illumination method basic needs basicpy, which is not installed"
        raise UsageError(found, hint="install it, or leave --illumination-method at mean")


def _enlarge(shading: Shading, bin_px: int, shape: tuple[int, int]) -> FlatField:
    """From bins to pixels, straight lines between the centres of bins; 1 on average."""
    for axis, side in enumerate(shape):
        margins = [(2, 2) if other == axis else (0, 0) for other in range(2)]
        wide = np.pad(shading, margins, mode="reflect", reflect_type="odd")
        places = (np.arange(side) + 0.5) / bin_px + 1.5
        before = places.astype(np.intp)
        share = (places - before)[:, None] if axis == 0 else places - before
        shading = wide.take(before, axis) * (1 - share) + wide.take(before + 1, axis) * share
    mean = shading.mean()
    if mean <= 0:
        return np.ones(shape, np.float32)
    level = np.clip(shading / mean, _DARKEST, _BRIGHTEST)
    flat: FlatField = (level / level.mean()).astype(np.float32)
    return flat
