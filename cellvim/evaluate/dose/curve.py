"""Half of the effect: at which dose, where the wells can say so?"""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit
from scipy.stats import f as f_distribution

PARAMETERS = 4
FEWEST_DOSES = 5
# The curve must beat a constant as clearly as this, and know its middle to a factor of ten either way.
LARGEST_P = 0.01
LARGEST_ERROR = 0.5
STEEPEST = 10.0
MOST_TRIES = 300
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Curve:
    """A four-parameter logistic curve: ``bottom + (top - bottom) / (1 + (ec50 / dose) ** slope)``.

    Args:
        ec50: Dose of half the effect, in the unit of the doses.
        low: Lower end of its 95 % interval, from the error of the fit.
        high: Upper end.
        slope: Hill slope.
        bottom: Place without the compound.
        top: Place at doses without end.
    """

    ec50: float
    low: float
    high: float
    slope: float
    bottom: float
    top: float


def fit_curve(dose: Float64[ndarray, " wells"], place: Float64[ndarray, " wells"]) -> Curve | None:
    """Fit a logistic curve to places by dose, least squares on the logarithm of the dose.

    Returns:
        None unless there are five doses and two wells more than parameters, the curve explains more than a constant
        (F test, p < 0.01), its middle lies between the lowest and the highest dose, and the standard error of its
        decimal logarithm is below 0.5.
    """
    is_placed = np.isfinite(place)
    dose, place = dose[is_placed], place[is_placed]
    spare = dose.size - PARAMETERS
    if np.unique(dose).size < FEWEST_DOSES or spare < 2 or np.ptp(place) == 0:
        return None
    fitted = least_squares(np.log10(dose), place)
    if fitted is None:
        return None
    (middle, log_slope, bottom, top), error = fitted
    left = float(((place - logistic(np.log10(dose), middle, log_slope, bottom, top)) ** 2).sum())
    gained = float(((place - place.mean()) ** 2).sum()) - left
    ratio = gained / (PARAMETERS - 1) / (left / spare) if left else np.inf
    is_inside = np.log10(dose.min()) < middle < np.log10(dose.max())
    if (
        not is_inside
        or not error < LARGEST_ERROR
        or f_distribution.sf(ratio, PARAMETERS - 1, spare) >= LARGEST_P
    ):
        return None
    low, high = (10 ** (middle + side * NORMAL_95 * error) for side in (-1, 1))
    slope = float(np.clip(np.exp(log_slope), 1 / STEEPEST, STEEPEST))
    return Curve(10**middle, low, high, slope, bottom, top)


def logistic(
    log_dose: Float64[ndarray, " wells"], middle: float, log_slope: float, bottom: float, top: float
) -> Float64[ndarray, " wells"]:
    steepness = np.exp(np.clip(log_slope, -np.log(STEEPEST), np.log(STEEPEST)))
    return np.asarray(bottom + (top - bottom) * expit(steepness * np.log(10) * (log_dose - middle)))


def least_squares(
    log_dose: Float64[ndarray, " wells"], place: Float64[ndarray, " wells"]
) -> tuple[tuple[float, float, float, float], float] | None:
    """Parameters of `logistic`, and the standard error of its middle; None where no fit is found."""
    start = (float(np.median(log_dose)), 0.0, float(place.min()), float(place.max()))
    try:
        with warnings.catch_warnings():
            # A covariance that cannot be told is infinite, and refused by its size.
            warnings.simplefilter("ignore", OptimizeWarning)
            found, covariance = curve_fit(logistic, log_dose, place, p0=start, maxfev=MOST_TRIES)
    except RuntimeError:
        return None
    middle, log_slope, bottom, top = map(float, found)
    return (middle, log_slope, bottom, top), float(np.sqrt(covariance[0, 0]))
