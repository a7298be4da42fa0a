"""Put wells of all plates on one scale, fitted on negative controls only.

Whatever is fitted here never sees the treated wells. A control that took part in a fit is judged against treated
wells only after a fit without it (`fitted_on`, see `evaluate.retrieval_tasks.judging_spaces`). A feature that does not vary among the
controls of some plate is dropped rather than divided by a small number.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray
from threadpoolctl import threadpool_limits

from cellvim.config import Normalization
from cellvim.folds import hash_of
from cellvim.profiles.annotate import require_column
from cellvim.profiles.fitted import FittedNormalization, group_codes, require_controls, rows_of_groups
from cellvim.profiles.making import making_of
from cellvim.profiles.schema import PLATE, WELL, Profiles
from cellvim.profiles.sphere import fit_sphere
from cellvim.profiles.steps import (
    ALIGNMENT_RIDGE,
    Alignment,
    How,
    Scaling,
    Step,
    centre_and_spread,
    fit_axes,
    is_spread,
    maps_of_group,
)

# A spread needs two; each plate must be able to spare one more, for controls are judged after a fit without them.
FEWEST_CONTROLS = 3
# Of the controls' variance that the axes of ``pca`` explain together.
PCA_SHARE = 0.99

Controls = Float64[ndarray, "controls features"]
Groups = Int[ndarray, " controls"]
FitStep = Callable[[Controls, Groups], Step]


def normalize(
    profiles: Profiles,
    method: Normalization,
    *,
    fitted_on: Bool[ndarray, " wells"] | None = None,
    batch: str | None = None,
) -> Profiles:
    """Normalise every well by what is learned from controls; see `fit_normalization` for the methods.

    Args:
        profiles: One row per well.
        method: ``none`` leaves everything as it is.
        fitted_on: Controls to learn from; all negative controls if absent.
        batch: Column of batches, for ``tvn``; the plate if absent.

    Raises:
        InputError: A plate has fewer than three controls, or fewer than two in `fitted_on`; or there is no column
            `batch`.
    """
    if method == "none":
        return profiles
    fit = fit_normalization(profiles, method, fitted_on=fitted_on, batch=batch)
    return fit.apply(profiles, controls=fitted_on)


def fit_normalization(
    profiles: Profiles,
    method: Normalization,
    *,
    fitted_on: Bool[ndarray, " wells"] | None = None,
    batch: str | None = None,
) -> FittedNormalization:
    """Learn from the controls of a table how wells are normalised, its own and those of plates to come.

    ``standardize``: per plate, subtract the controls' mean, divide by their standard deviation.
    ``mad``: per plate, subtract the controls' median, divide by 1.4826 times their median absolute deviation.
    ``sphere``: whiten by the controls of all plates together (see `fit_sphere`), then ``standardize``.
    ``tvn`` (typical variation normalisation): standardise by the controls of all plates, turn to their principal
    axes, standardise per batch by its controls, and multiply by ``(C + 0.5 I)^(-1/2)``, where C is the covariance
    of the batch's controls. All axes that the controls span are kept, at most one fewer than there are controls:
    with fewer controls than features, whatever lies outside of the controls' own variation is lost.
    ``pca``: ``standardize``, then project on the principal axes of all controls, the fewest that explain 99 % of
    their variance. The axes are turned and not scaled: to divide by the deviation along each would blow up those
    about which few controls say least, and ``sphere`` does that with a ridge. What is cut weighs little in a
    cosine: the last 1 % is near-duplicates of features. It too loses what lies outside of the controls' variation.

    If no feature varies among controls, as when an encoder has collapsed, features are only centred: all
    wells then look alike, and retrieval puts them at the bottom.

    Args:
        profiles: One row per well.
        method: See above.
        fitted_on: Controls to learn from; all negative controls if absent.
        batch: Column of batches, for ``tvn``; the plate if absent. Other methods take each plate by itself.

    Raises:
        InputError: A plate or batch has fewer than three controls, or fewer than two in `fitted_on`; or there is
            no column `batch`.

    Source:
        Ando et al. 2017, "Improving phenotypic measurements in high-content imaging screens" (TVN), in the form
        of EFAAR (Celik et al. 2024), except that deviations here divide by n - 1, as everywhere in this package.
    """
    controls = profiles.is_control if fitted_on is None else fitted_on
    fewest = FEWEST_CONTROLS if fitted_on is None else FEWEST_CONTROLS - 1
    grouping = require_column(profiles, batch) if method == "tvn" and batch is not None else PLATE
    for column in dict.fromkeys((PLATE, grouping)):
        require_controls(profiles, column, controls, fewest=fewest)
    own = profiles.features[controls].astype(np.float64)
    kept = varies_in_every_group(
        own, plate_codes(profiles)[controls], "mad" if method == "mad" else "standardize"
    )
    groups = group_codes(profiles, grouping)[controls]
    # In one thread, as the last bits would depend on how many there are.
    with threadpool_limits(1):
        steps = fitted_steps(method, own[:, kept], groups) if kept.any() else ()
    is_collapsed = not steps
    if is_collapsed:
        kept, steps, grouping = (
            np.ones(kept.size, bool),
            (Scaling("centre", np.ones(kept.size, bool)),),
            PLATE,
        )
    names = tuple(name for name, is_kept in zip(profiles.feature_names, kept, strict=True) if is_kept)
    return FittedNormalization(
        method=method,
        grouping=grouping,
        feature_names=names,
        steps=steps,
        controls=len(own),
        making=making_of(profiles.provenance),
    )


def fitted_steps(method: Normalization, controls: Controls, groups: Groups) -> tuple[Step, ...]:
    """Learn the steps one after the other, each from what the former made of the controls; none if nothing is left."""
    steps: list[Step] = []
    for fit_step in METHODS[method]:
        step = fit_step(controls, groups)
        if isinstance(step, Scaling) and not step.kept.any():
            return ()
        steps.append(step)
        controls = mapped_by_group(step, controls, groups)
    return tuple(steps)


def mapped_by_group(step: Step, controls: Controls, groups: Groups) -> Float64[ndarray, "controls kept"]:
    rows = rows_of_groups(groups)
    parts = [maps_of_group((step,), controls[members])[0].apply(controls[members]) for members in rows]
    mapped = np.empty((len(groups), parts[0].shape[1]))
    for members, part in zip(rows, parts, strict=True):
        mapped[members] = part
    return mapped


def fit_scaling(controls: Controls, groups: Groups, *, how: How) -> Scaling:
    return Scaling(how, varies_in_every_group(controls, groups, how))


def varies_in_every_group(controls: Controls, groups: Groups, how: How) -> Bool[ndarray, " features"]:
    """True for features with spread among the controls of each group, by the measure that will divide them."""
    varies = np.ones(controls.shape[1], bool)
    for code in np.unique(groups):
        own = controls[groups == code]
        varies &= is_spread(own, centre_and_spread(own, how)[1])
    return varies


METHODS: Mapping[Normalization, tuple[FitStep, ...]] = {
    "standardize": (partial(fit_scaling, how="standardize"),),
    "mad": (partial(fit_scaling, how="mad"),),
    "sphere": (lambda controls, _: fit_sphere(controls), partial(fit_scaling, how="standardize")),
    "tvn": (
        lambda controls, _: fit_axes(controls, share=1.0, is_standardized=False),
        partial(fit_scaling, how="standardize"),
        lambda *_: Alignment(ALIGNMENT_RIDGE),
    ),
    "pca": (
        partial(fit_scaling, how="standardize"),
        lambda controls, _: fit_axes(controls, share=PCA_SHARE, is_standardized=True),
    ),
}
"""Steps of each method, in order: how each is learned from controls and the plate or batch of each control."""


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
    return group_codes(profiles, PLATE)
