"""Sphering: make the variation of negative controls the same in every direction, so that what is left stands out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

RIDGE = 1.0
# Eigenvalues below this share of the largest are rounding: the controls do not vary along those axes.
SMALLEST_EIGENVALUE = 1e-10


@dataclass(frozen=True)
class Sphere:
    """Whitening learned from controls: standardise, then gain `inner` along `axes` and `outer` across them.

    Args:
        centre: Mean of the controls.
        spread: Standard deviation of the controls.
        axes: Orthonormal rows: directions in which the controls vary, after standardisation.
        inner: Gain along each axis.
        outer: Gain in all directions that the controls do not span.
    """

    centre: Float64[ndarray, " features"]
    spread: Float64[ndarray, " features"]
    axes: Float64[ndarray, "axes features"]
    inner: Float64[ndarray, " axes"]
    outer: float

    def apply(self, features: Float64[ndarray, "wells features"]) -> Float64[ndarray, "wells features"]:
        standardized = (features - self.centre) / self.spread
        along = (standardized @ self.axes.T) * (self.inner - self.outer)
        whitened: Float64[ndarray, "wells features"] = along @ self.axes + self.outer * standardized
        return whitened


def fit_sphere(controls: Float64[ndarray, "controls features"], *, ridge: float = RIDGE) -> Sphere:
    """Fit ZCA whitening of the correlation matrix C of controls: ``(C + ridge I)^(-1/2)``.

    The ridge is fixed beforehand at the mean eigenvalue of a correlation matrix, 1, as if half of each
    feature's variance were noise of its own. Screens have fewer controls than features (6 to 64 wells against
    200 to 1000): most eigenvalues are then 0, and a small ridge would blow up exactly the directions about
    which the controls say nothing, relative to the few they span. With 1, no direction is ever amplified over
    plain standardisation; those in which controls vary together are damped by ``1 / sqrt(1 + eigenvalue)``.

    Cost: one eigendecomposition of d x d, or of controls x controls where those are fewer, so it grows
    linearly with wells.

    Args:
        controls: At least two rows; every feature varies.
        ridge: Added to every eigenvalue; 0 is plain ZCA-cor, defined only with more controls than features.

    Source:
        Kessy et al. 2018, "Optimal whitening and decorrelation" (ZCA-cor); Ando et al. 2017 (ridge on controls).
    """
    centre, spread = controls.mean(axis=0), controls.std(axis=0, ddof=1)
    return whitening((controls - centre) / spread, centre, spread, ridge=ridge)


def fit_alignment(controls: Float64[ndarray, "controls features"], *, ridge: float) -> Sphere:
    """Fit ``(cov + ridge I)^(-1/2)`` to the covariance of controls that have mean 0 already."""
    width = controls.shape[1]
    return whitening(controls, np.zeros(width), np.ones(width), ridge=ridge)


def whitening(
    standardized: Float64[ndarray, "controls features"],
    centre: Float64[ndarray, " features"],
    spread: Float64[ndarray, " features"],
    *,
    ridge: float,
) -> Sphere:
    eigenvalues, axes = principal_axes(standardized)
    outer = 1 / np.sqrt(ridge) if ridge > 0 else 0.0
    return Sphere(centre, spread, axes, 1 / np.sqrt(eigenvalues + ridge), float(outer))


def principal_axes(
    centred: Float64[ndarray, "controls features"],
) -> tuple[Float64[ndarray, " axes"], Float64[ndarray, "axes features"]]:
    """Directions in which controls of mean 0 vary and their variance along each, smallest first.

    With no more controls than features, only the directions that the controls span.
    """
    degrees = len(centred) - 1
    if len(centred) > centred.shape[1]:
        eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / degrees)
        return np.maximum(eigenvalues, 0), np.ascontiguousarray(vectors.T)
    eigenvalues, left = np.linalg.eigh(centred @ centred.T / degrees)
    is_spanned = eigenvalues > eigenvalues[-1] * SMALLEST_EIGENVALUE
    eigenvalues, left = eigenvalues[is_spanned], left[:, is_spanned]
    return eigenvalues, left.T @ centred / np.sqrt(eigenvalues * degrees)[:, None]
