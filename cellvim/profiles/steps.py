"""Steps of a normalisation. Some are learned once; the others are learned anew from each plate's own controls."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from cellvim.profiles.sphere import SMALLEST_EIGENVALUE, Sphere, fit_alignment, principal_axes

How = Literal["standardize", "mad", "centre"]
HOWS: tuple[How, ...] = get_args(How)

# A standard deviation below this share of the largest control value is rounding of float32, not spread.
SMALLEST_SPREAD = 1e-6
# Makes the median absolute deviation of normal data their standard deviation.
MAD_TO_DEVIATION = 1.4826
# Ando et al. 2017, as the design of `tvn` has it: half of the unit variance that every axis has by then.
ALIGNMENT_RIDGE = 0.5


@dataclass(frozen=True)
class Shift:
    """Subtract `centre`, divide by `spread`; features that are not `kept` go.

    Args:
        kept: Features that stay.
        centre: Of each that stays.
        spread: Of each that stays; infinite where the controls say nothing about it, which makes it 0.
    """

    kept: Bool[ndarray, " features"]
    centre: Float64[ndarray, " kept"]
    spread: Float64[ndarray, " kept"]

    def apply(self, features: Float64[ndarray, "wells features"]) -> Float64[ndarray, "wells kept"]:
        chosen = features if self.kept.all() else features[:, self.kept]
        shifted: Float64[ndarray, "wells kept"] = (chosen - self.centre) / self.spread
        return shifted


@dataclass(frozen=True)
class Axes:
    """Standardise as learned from all controls, then project on axes.

    Args:
        centre: Subtracted first.
        spread: Then divided by.
        axes: Orthonormal rows.
    """

    centre: Float64[ndarray, " features"]
    spread: Float64[ndarray, " features"]
    axes: Float64[ndarray, "axes features"]

    def apply(self, features: Float64[ndarray, "wells features"]) -> Float64[ndarray, "wells axes"]:
        projected: Float64[ndarray, "wells axes"] = ((features - self.centre) / self.spread) @ self.axes.T
        return projected


@dataclass(frozen=True)
class Scaling:
    """Per plate or batch: subtract the centre of its own controls, divide by their spread.

    Args:
        how: ``standardize``: mean and standard deviation; ``mad``: median and 1.4826 times the median absolute
            deviation; ``centre``: mean, and no spread.
        kept: Features that stay, chosen when the normalisation was fitted.
    """

    how: How
    kept: Bool[ndarray, " features"]

    def learned_from(self, controls: Float64[ndarray, "controls features"]) -> Shift:
        chosen = controls if self.kept.all() else controls[:, self.kept]
        centre, spread = centre_and_spread(chosen, self.how)
        if self.how != "centre":
            spread = np.where(is_spread(chosen, spread), spread, np.inf)
        return Shift(self.kept, centre, spread)


@dataclass(frozen=True)
class Alignment:
    """Per plate or batch: multiply by ``(cov + ridge I)^(-1/2)`` of its own controls."""

    ridge: float

    def learned_from(self, controls: Float64[ndarray, "controls features"]) -> Sphere:
        return fit_alignment(controls, ridge=self.ridge)


Map = Sphere | Axes | Shift
"""A change of features that has been learned: linear in wells, up to an offset."""
Step = Sphere | Axes | Scaling | Alignment
OWN_STEPS = (Scaling, Alignment)
"""Those that each plate or batch learns from its own controls."""


def maps_of_group(steps: tuple[Step, ...], controls: Float64[ndarray, "controls features"]) -> list[Map]:
    """What becomes of the wells of one plate or batch, by its own controls where a step asks for them."""
    maps: list[Map] = []
    for step in steps:
        learned: Map = step.learned_from(controls) if isinstance(step, OWN_STEPS) else step
        controls = learned.apply(controls)
        maps.append(learned)
    return maps


def fit_axes(controls: Float64[ndarray, "controls features"], *, share: float, is_standardized: bool) -> Axes:
    """Principal axes of controls, largest variance first.

    Args:
        controls: At least two rows.
        share: Of the controls' variance that the axes kept explain together; 1 keeps all that the controls span.
        is_standardized: Whether the features have mean 0 and deviation 1 already, plate by plate.
    """
    width = controls.shape[1]
    centre, spread = np.zeros(width), np.ones(width)
    if not is_standardized:
        centre, spread = controls.mean(axis=0), controls.std(axis=0, ddof=1)
    eigenvalues, axes = principal_axes((controls - centre) / spread)
    eigenvalues, axes = eigenvalues[::-1], axes[::-1]
    explained = np.cumsum(eigenvalues) / eigenvalues.sum()
    # The first axis is always kept, and every one that is needed to reach the share.
    is_needed = np.concatenate([[True], (explained[:-1] < share) | (share == 1)])
    is_spanned = eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[0]
    return Axes(centre, spread, with_fixed_signs(axes[is_needed & is_spanned]))


def with_fixed_signs(axes: Float64[ndarray, "axes features"]) -> Float64[ndarray, "axes features"]:
    """Turn each axis so that its largest entry is positive: an eigenvector's own sign means nothing."""
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return np.ascontiguousarray(axes * np.sign(largest))


def centre_and_spread(
    controls: Float64[ndarray, "controls features"], how: How
) -> tuple[Float64[ndarray, " features"], Float64[ndarray, " features"]]:
    if how == "mad":
        centre = np.median(controls, axis=0)
        return centre, MAD_TO_DEVIATION * np.median(np.abs(controls - centre), axis=0)
    if how == "centre":
        return controls.mean(axis=0), np.ones(controls.shape[1])
    return controls.mean(axis=0), controls.std(axis=0, ddof=1)


def is_spread(
    controls: Float64[ndarray, "controls features"], spread: Float64[ndarray, " features"]
) -> Bool[ndarray, " features"]:
    """True for features whose spread among controls is more than rounding."""
    return np.asarray(spread > SMALLEST_SPREAD * np.abs(controls).max(axis=0))
