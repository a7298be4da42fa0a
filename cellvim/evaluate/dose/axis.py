"""Where does a well lie between the negative (0) and the positive controls (1) of its plate?"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.evaluate.retrieval_tasks import judging_spaces
from cellvim.evaluate.screen import Screen
from cellvim.folds import hash_of
from cellvim.profiles import control_folds
from cellvim.profiles.schema import CONTROL_TYPE, PLATE, WELL
from cellvim.statistics import z_prime

FOLDS = 5
POSITIVE_CONTROL = "poscon"


@dataclass(frozen=True)
class Plate:
    """Controls of one plate in one space of features.

    Args:
        origin: Mean of the negative controls.
        positive: Sum of the positive controls' distances from it.
        count: Number of positive controls.
        axis: From the origin to the positive controls; those of other plates where this one has none.
    """

    origin: Float64[ndarray, " features"]
    positive: Float64[ndarray, " features"]
    count: int
    axis: Float64[ndarray, " features"]

    def place(self, features: Float64[ndarray, "wells features"]) -> Float64[ndarray, " wells"]:
        """Place wells that had no part in the axis."""
        return np.asarray((features - self.origin) @ self.axis / self.length)

    def place_positive(self, features: Float64[ndarray, "wells features"]) -> Float64[ndarray, " wells"]:
        """Place positive controls of the plate, each on the axis to the others; NaN if it has no others."""
        if self.count < 2:
            return np.full(len(features), np.nan)
        moved = features - self.origin
        along = moved @ self.positive - np.einsum("wf,wf->w", moved, moved)
        return np.asarray(along / (self.count - 1) / self.length)

    @property
    def length(self) -> float:
        """Squared length of the axis; 1 where all controls are alike, which puts every well at 0."""
        return float(self.axis @ self.axis) or 1.0


def is_positive(screen: Screen) -> Bool[ndarray, " wells"]:
    """True for positive controls."""
    metadata = screen.raw.metadata
    if CONTROL_TYPE not in metadata.columns:
        return np.zeros(metadata.height, bool)
    marked = (metadata[CONTROL_TYPE] == POSITIVE_CONTROL).fill_null(value=False).to_numpy()
    return np.asarray(marked & screen.wells.is_treated)


def places_on_axis(screen: Screen) -> Float64[ndarray, " wells"]:
    """Place every well on the axis of its plate, from negative (0) to positive controls (1).

    A control is placed in a space, from an origin and along an axis that it had no part in: with more features than
    controls, an axis that has seen a well puts it on the right side whatever the images show. Negative controls
    are left out by fifths, of the normalisation too; positive controls one by one. The length of an axis comes from
    all its controls, so that what is inert has the same place on average whatever it is called: 0, but for the noise
    of the origin, which all wells of a plate share (in features of pure noise, the share that the variance of the
    negative controls' mean has in the variance of both means).

    Returns:
        NaN where a plate has no negative controls, the table no positive ones, or a control no others.
    """
    negative, positive = screen.wells.is_control & screen.wells.takes_part, is_positive(screen)
    places = np.full(negative.size, np.nan)
    for members, plate in plates(screen.wells.plate, screen.normalized.features, negative, positive):
        places[members] = plate.place(screen.normalized.features[members].astype(np.float64))
    places[negative | positive] = np.nan
    for rows, found in places_of_controls(screen, negative, positive):
        places[rows] = found
    places[~screen.wells.takes_part] = np.nan
    return places


def places_of_controls(
    screen: Screen, negative: Bool[ndarray, " wells"], positive: Bool[ndarray, " wells"]
) -> Iterator[tuple[Int[ndarray, " rows"], Float64[ndarray, " rows"]]]:
    """Place the controls, a fold after the other."""
    rows = np.flatnonzero(negative | positive)
    if not negative.any():
        return
    controls = screen.only(rows)
    negative, positive, code = negative[rows], positive[rows], controls.wells.plate
    fold = control_folds(controls.raw, FOLDS)
    folds = int(fold.max()) + 1
    fold = np.where(negative, fold, dealt_positives(controls, positive, folds=folds))
    for number, features in fold_spaces(controls, folds):
        held_out = fold == number
        for members, plate in plates(code, features, negative & ~held_out, positive):
            for kind, place in ((negative, plate.place), (positive, plate.place_positive)):
                own = members[(held_out & kind)[members]]
                yield rows[own], place(features[own].astype(np.float64))


def fold_spaces(controls: Screen, folds: int) -> Iterator[tuple[int, Float[ndarray, "wells features"]]]:
    """Yield each fold of negative controls, with the features as a normalisation without it gives them."""
    method = controls.settings.normalize
    batch = controls.batch_column
    spaces = judging_spaces(controls.raw, controls.normalized, "activity", method, batch=batch)
    for number in range(folds):
        # Without normalisation there is one space, which has seen nothing.
        yield number, spaces[min(number, len(spaces) - 1)].features


def dealt_positives(
    controls: Screen, positive: Bool[ndarray, " wells"], *, folds: int
) -> Int[ndarray, " wells"]:
    """Deal the positive controls of each plate into folds, in the order of a hash of their well."""
    fold = np.full(positive.size, -1)
    wells = controls.raw.metadata.select(PLATE, WELL).rows()
    for code in np.unique(controls.wells.plate):
        members = np.flatnonzero(positive & (controls.wells.plate == code))
        dealt = sorted(members, key=lambda row: hash_of("/".join(wells[row]), salt="positive control"))
        fold[dealt] = np.arange(len(dealt)) % folds
    return fold


def plates(
    code: Int[ndarray, " wells"],
    features: Float[ndarray, "wells features"],
    negative: Bool[ndarray, " wells"],
    positive: Bool[ndarray, " wells"],
) -> Iterator[tuple[Int[ndarray, " members"], Plate]]:
    """Wells and axis of each plate that has negative controls."""
    found: list[tuple[Int[ndarray, " members"], Plate]] = []
    for number in np.unique(code):
        members = np.flatnonzero(code == number)
        own = members[negative[members]]
        if not own.size:
            continue
        origin = features[own].astype(np.float64).mean(axis=0)
        moved = features[members[positive[members]]].astype(np.float64) - origin
        found.append(
            (members, Plate(origin, moved.sum(axis=0), len(moved), moved.sum(axis=0) / max(1, len(moved))))
        )
    axes = [plate.axis for _, plate in found if plate.count]
    if not axes:
        return
    borrowed = np.mean(axes, axis=0)
    for members, plate in found:
        yield members, plate if plate.count else replace(plate, axis=borrowed)


def control_separation(screen: Screen, places: Float64[ndarray, " wells"]) -> pl.DataFrame:
    """Z'-factor of each plate: null with fewer than two controls of a kind, or where their means are the same."""
    negative, positive = (
        screen.wells.is_control & np.isfinite(places),
        is_positive(screen) & np.isfinite(places),
    )
    rows = []
    for number, name in enumerate(screen.raw.plates):
        own = screen.wells.plate == number
        low, high = places[own & negative], places[own & positive]
        value = z_prime(low, high) if min(low.size, high.size) >= 2 else np.nan
        rows.append((name, value if np.isfinite(value) else None, low.size, high.size))
    schema = {
        PLATE: pl.String,
        "z_prime": pl.Float64,
        "negative_controls": pl.Int64,
        "positive_controls": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def plate_origins(screen: Screen) -> dict[int, Float64[ndarray, " features"]]:
    """Mean of the negative controls of each plate that has some, by the plate's code."""
    negative = screen.wells.is_control & screen.wells.takes_part
    return {
        int(code): screen.normalized.features[negative & (screen.wells.plate == code)].mean(
            axis=0, dtype=np.float64
        )
        for code in np.unique(screen.wells.plate[negative])
    }
