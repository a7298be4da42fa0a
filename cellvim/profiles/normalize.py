"""Put wells of all plates on one scale, fitted on negative controls only.

Whatever is fitted here never sees the treated wells. A control that took part in a fit is judged against treated
wells only after a fit without it (`fitted_on`, see `evaluate.retrieval_tasks.judging_spaces`). A feature that does not vary among the
controls of some plate is dropped rather than divided by a small number.
"""

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from cellvim.config import Normalization
from cellvim.errors import InputError
from cellvim.folds import hash_of
from cellvim.profiles.schema import PLATE, WELL, Profiles
from cellvim.profiles.sphere import fit_sphere

# A standard deviation below this share of the largest control value is rounding of float32, not spread.
SMALLEST_SPREAD = 1e-6
# A spread needs two; each plate must be able to spare one more, for controls are judged after a fit without them.
FEWEST_CONTROLS = 3
# Makes the median absolute deviation of normal data their standard deviation.
MAD_TO_DEVIATION = 1.4826


def normalize(
    profiles: Profiles, method: Normalization, *, fitted_on: Bool[ndarray, " wells"] | None = None
) -> Profiles:
    """Normalise every well by what is learned from controls.

    ``standardize``: per plate, subtract the controls' mean, divide by their standard deviation.
    ``mad``: per plate, subtract the controls' median, divide by 1.4826 times their median absolute deviation.
    ``sphere``: whiten by the controls of all plates together (see `fit_sphere`), then ``standardize``.
    ``none``: leave everything as it is.

    If no feature varies among controls, as when an encoder has collapsed, features are only centred: all
    wells then look alike, and retrieval puts them at the bottom.

    Args:
        profiles: One row per well.
        method: See above.
        fitted_on: Controls to learn from; all negative controls if absent.

    Raises:
        InputError: A plate has fewer than three controls, or fewer than two in `fitted_on`.
    """
    if method == "none":
        return profiles
    controls = profiles.is_control if fitted_on is None else fitted_on
    plate = plate_codes(profiles)
    fewest = FEWEST_CONTROLS if fitted_on is None else FEWEST_CONTROLS - 1
    require_controls(profiles, plate, controls, fewest=fewest)
    features = profiles.features.astype(np.float64)
    kept = varies_on_every_plate(features, plate, controls, method)
    if not kept.any():
        flat = centred(features, plate, controls)
        warning = "no feature varies among the negative controls: the profiles are only centred"
        return profiles.with_features(flat, np.ones(kept.size, bool)).warning(warning)
    if method == "sphere":
        features[:, kept] = fit_sphere(features[controls][:, kept]).apply(features[:, kept])
        kept &= varies_on_every_plate(features, plate, controls, method)
    normalized = profiles.with_features(scaled(features[:, kept], plate, controls, method), kept)
    dropped = int((~kept).sum())
    if not dropped:
        return normalized
    warning = f"{dropped} of {kept.size} features dropped: they do not vary among the controls of some plate"
    return normalized.warning(warning)


def control_folds(profiles: Profiles, folds: int) -> Int[ndarray, " wells"]:
    """Deal the negative controls of each plate into folds; -1 for every other well.

    Controls are dealt in the order of a hash of their well, so that a fold is spread over the plate, and so
    that the result does not depend on the order of rows.
    """
    fold = np.full(profiles.metadata.height, -1)
    wells = profiles.metadata.select(PLATE, WELL).rows()
    plate = plate_codes(profiles)
    for code in np.unique(plate):
        members = np.flatnonzero((plate == code) & profiles.is_control)
        dealt = sorted(members, key=lambda row: hash_of("/".join(wells[row]), salt="control"))
        fold[dealt] = np.arange(len(dealt)) % folds
    return fold


def plate_codes(profiles: Profiles) -> Int[ndarray, " wells"]:
    return np.unique(profiles.metadata[PLATE].to_numpy(), return_inverse=True)[1]


def require_controls(
    profiles: Profiles, plate: Int[ndarray, " wells"], controls: Bool[ndarray, " wells"], *, fewest: int
) -> None:
    if not controls.any():
        found = (
            f"{profiles.source} has no negative controls, which normalisation and activity are measured by"
        )
        hint = (
            "mark them with --control COLUMN=VALUE or a --platemap; or pass --normalize none "
            "--tasks distinctiveness,replicate_retrieval,probe"
        )
        raise InputError(found, hint=hint)
    counts = np.bincount(plate, weights=controls)
    poor = [name for name, count in zip(profiles.plates, counts, strict=True) if count < fewest]
    if poor:
        found = (
            f"{profiles.source}: {len(poor)} plate(s) have fewer than {fewest} negative controls "
            f"to normalise by, for example {poor[0]}"
        )
        raise InputError(
            found, hint="mark more wells with --control, drop the plates, or pass --normalize none"
        )


def varies_on_every_plate(
    features: Float64[ndarray, "wells features"],
    plate: Int[ndarray, " wells"],
    controls: Bool[ndarray, " wells"],
    method: Normalization,
) -> Bool[ndarray, " features"]:
    """True for features with spread among the controls of each plate, by the measure that will divide them."""
    varies = np.ones(features.shape[1], bool)
    for code in np.unique(plate):
        own = features[controls & (plate == code)]
        varies &= centre_and_spread(own, method)[1] > SMALLEST_SPREAD * np.abs(own).max(axis=0)
    return varies


def centre_and_spread(
    controls: Float64[ndarray, "controls features"], method: Normalization
) -> tuple[Float64[ndarray, " features"], Float64[ndarray, " features"]]:
    """Centre and spread of each feature: median and MAD for ``mad``, else mean and standard deviation."""
    if method == "mad":
        centre = np.median(controls, axis=0)
        return centre, MAD_TO_DEVIATION * np.median(np.abs(controls - centre), axis=0)
    return controls.mean(axis=0), controls.std(axis=0, ddof=1)


def scaled(
    features: Float64[ndarray, "wells features"],
    plate: Int[ndarray, " wells"],
    controls: Bool[ndarray, " wells"],
    method: Normalization,
) -> Float64[ndarray, "wells features"]:
    """Per plate, subtract the controls' centre and divide by their spread."""
    result = np.empty_like(features)
    for code in np.unique(plate):
        members = plate == code
        centre, spread = centre_and_spread(features[members & controls], method)
        result[members] = (features[members] - centre) / spread
    return result


def centred(
    features: Float64[ndarray, "wells features"],
    plate: Int[ndarray, " wells"],
    controls: Bool[ndarray, " wells"],
) -> Float[ndarray, "wells features"]:
    result = np.empty_like(features)
    for code in np.unique(plate):
        members = plate == code
        result[members] = features[members] - features[members & controls].mean(axis=0)
    return result
