"""Put the wells of a table through the steps of a normalisation, plate by plate."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int
from numpy import ndarray
from threadpoolctl import threadpool_limits

from cellvim.config.base import cores
from cellvim.profiles.steps import Axes, Shift, Step, maps_of_group

# More do not help: memory is then what is waited for.
MOST_WORKERS = 8


@dataclass(frozen=True)
class Remark:
    """What is worth knowing of one plate or batch.

    Args:
        flat: Features that do not vary among its controls.
        before: Squared lengths of its treated wells before they were projected on axes, added up.
        after: The same afterwards.
    """

    flat: int
    before: float
    after: float


def map_groups(
    features: Float32[ndarray, "wells features"],
    steps: Sequence[Step],
    groups: Sequence[Int[ndarray, " _"]],
    is_control: Bool[ndarray, " wells"],
    result: Float32[ndarray, "wells kept"],
) -> list[Remark]:
    """Fill `result` with what becomes of each well.

    Plates are spread over cores, each in one thread of linear algebra: its threads would get in each other's way
    on matrices of this size, and the last bits of a result would depend on how many there are. Only the wells of
    the plates at work are held in double precision.

    Args:
        features: Before, those that the steps ask for.
        steps: Applied one after the other.
        groups: Rows of each plate or batch.
        is_control: Wells that a plate learns from where a step asks for it.
        result: To be filled.

    Returns:
        A remark for each group.
    """

    def fill(rows: Int[ndarray, " members"]) -> Remark:
        result[rows], remark = mapped_group(features[rows].astype(np.float64), steps, is_control[rows])
        return remark

    with threadpool_limits(1), ThreadPoolExecutor(min(MOST_WORKERS, cores())) as pool:
        return list(pool.map(fill, groups))


def mapped_group(
    wells: Float64[ndarray, "wells features"], steps: Sequence[Step], is_control: Bool[ndarray, " wells"]
) -> tuple[Float64[ndarray, "wells kept"], Remark]:
    maps = maps_of_group(tuple(steps), wells[is_control])
    before = after = 0.0
    for learned in maps:
        if isinstance(learned, Axes):
            treated = (wells[~is_control] - learned.centre) / learned.spread
            before += float(np.vdot(treated, treated))
        wells = learned.apply(wells)
        if isinstance(learned, Axes):
            after += float(np.vdot(wells[~is_control], wells[~is_control]))
    flat = sum(int(np.isinf(each.spread).sum()) for each in maps if isinstance(each, Shift))
    return wells, Remark(flat, before, after)
