"""A normalisation that has been fitted: applied to the wells it was fitted with, or to a new plate."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Bool, Int
from numpy import ndarray

from cellvim.config import Normalization
from cellvim.errors import InputError
from cellvim.profiles.annotate import require_column
from cellvim.profiles.grouped import Remark, map_groups
from cellvim.profiles.making import first_difference, making_of
from cellvim.profiles.schema import PLATE, Profiles, shortened
from cellvim.profiles.steps import Axes, Scaling, Step

logger = logging.getLogger(__name__)

FEWEST_OWN_CONTROLS = 2
"""Of a plate whose wells are put through a fit: a spread needs two."""
SMALL_LOSS = 0.05
"""Share of what tells treated wells from controls that axes may lose unsaid: `pca` leaves out 1 % of the controls'."""


@dataclass(frozen=True)
class FittedNormalization:
    """What was learned from controls: which features are used, and steps for their values.

    What concerns all plates (features, whitening, axes) is fixed here; what concerns one plate or batch (centre,
    spread, alignment) is learned from its own controls in the table that it is applied to. So the wells of a new
    plate get the values that they would have in a table together with the old ones, but for the fixed part.

    Args:
        method: Name of the normalisation.
        grouping: Column that says which wells share their centre and spread: the plate, or a batch for ``tvn``.
        feature_names: Features that are used, in order.
        steps: Applied one after the other.
        controls: How many wells it was learned from.
        making: What the tables' provenance says about how features were made; empty for foreign tables.
    """

    method: Normalization
    grouping: str
    feature_names: tuple[str, ...]
    steps: tuple[Step, ...]
    controls: int
    making: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_collapsed(self) -> bool:
        """True if no feature varied among the controls, so that wells are only centred."""
        return any(isinstance(step, Scaling) and step.how == "centre" for step in self.steps)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the features that come out: those that go in, or axes."""
        names = self.feature_names
        for step in self.steps:
            if isinstance(step, Axes):
                names = tuple(f"{self.method}_{number:04}" for number in range(len(step.axes)))
            elif isinstance(step, Scaling):
                names = tuple(name for name, is_kept in zip(names, step.kept, strict=True) if is_kept)
        return names

    def apply(self, profiles: Profiles, *, controls: Bool[ndarray, " wells"] | None = None) -> Profiles:
        """Normalise wells of any plates, each plate or batch by its own controls where a step asks for them.

        A plate is normalised by itself: which others are in the table does not change its values.

        Args:
            profiles: One row per well, with the features that the fit uses, in any order.
            controls: Wells that count as controls; all negative controls if absent. With some of them only, the
                result is for judging the others, and warns of nothing: a fit to all has said it.

        Raises:
            InputError: The table lacks a feature or was made differently from what was fitted, or a plate or batch
                has fewer than two controls.
        """
        is_partial = controls is not None
        controls = profiles.is_control if controls is None else controls
        columns = self._columns_in(profiles)
        grouping = require_column(profiles, self.grouping)
        require_controls(profiles, grouping, controls, fewest=FEWEST_OWN_CONTROLS)
        groups = group_codes(profiles, grouping)
        names = self.output_names
        values = np.empty((len(groups), len(names)), np.float32)
        is_whole = np.array_equal(columns, np.arange(len(profiles.feature_names)))
        chosen = profiles.features if is_whole else profiles.features[:, columns]
        remarks = map_groups(chosen, self.steps, rows_of_groups(groups), controls, values)
        normalized = replace(profiles, features=values, feature_names=names)
        return normalized if is_partial else self._warned(normalized, remarks, len(profiles.feature_names))

    def _columns_in(self, profiles: Profiles) -> Int[ndarray, " features"]:
        different = first_difference(self.making, making_of(profiles.provenance))
        if different is not None:
            found = f"{profiles.source} was made differently from the tables of the fit: {different}"
            raise InputError(found, hint="make it again in the same way, or fit a normalisation of its own")
        position = {name: index for index, name in enumerate(profiles.feature_names)}
        missing = [name for name in self.feature_names if name not in position]
        if missing:
            found = (
                f"{profiles.source} lacks {len(missing)} feature(s) of the fit: {shortened(missing, most=3)}"
            )
            raise InputError(found, hint="give a table with the features that the fit was made on")
        return np.array([position[name] for name in self.feature_names])

    def _warned(self, profiles: Profiles, remarks: Sequence[Remark], before: int) -> Profiles:
        if self.is_collapsed:
            return profiles.warning(
                "no feature varies among the negative controls: the profiles are only centred"
            )
        dropped = before - len(self.feature_names)
        axes = next((step for step in self.steps if isinstance(step, Axes)), None)
        if axes is None:
            dropped = before - len(profiles.feature_names)
        if dropped:
            warning = (
                f"{dropped} of {before} features dropped: they do not vary among the controls of some plate"
            )
            profiles = profiles.warning(warning)
        whole = sum(each.before for each in remarks)
        lost = 1 - sum(each.after for each in remarks) / whole if whole else 0.0
        if axes is not None and lost > SMALL_LOSS:
            warning = (
                f"{self.method} keeps {len(axes.axes)} axes of {len(self.feature_names)} features, those along which "
                f"its {self.controls} controls vary: {lost:.0%} of what tells treated wells from the controls' mean "
                "lies across them and is lost"
            )
            profiles = profiles.warning(warning)
        flat = [each.flat for each in remarks]
        if any(flat):
            worst = int(np.argmax(flat))
            name = group_names(profiles, self.grouping).unique().sort()[worst]
            warning = (
                f"{sum(map(bool, flat))} plate(s) with features that do not vary among their own controls, "
                f"for example {flat[worst]} on {name}: these are 0 there, as in a control"
            )
            profiles = profiles.warning(warning)
        return profiles


def group_codes(profiles: Profiles, column: str) -> Int[ndarray, " wells"]:
    """Number the values of a column in sorted order; wells without a value share one."""
    return group_names(profiles, column).rank("dense").cast(pl.Int64).to_numpy() - 1


def group_names(profiles: Profiles, column: str) -> pl.Series:
    return profiles.metadata[column].cast(pl.String).fill_null("")


def rows_of_groups(groups: Int[ndarray, " wells"]) -> list[Int[ndarray, " members"]]:
    """Rows of each group, in the order of the table."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])


def require_controls(
    profiles: Profiles, column: str, controls: Bool[ndarray, " wells"], *, fewest: int
) -> None:
    """Refuse a table in which some plate or batch has too few controls.

    Raises:
        InputError: There are no controls, or fewer than `fewest` somewhere.
    """
    if not controls.any():
        found = f"{profiles.source} has no negative controls, by which profiles are normalised and activity is judged"
        hint = (
            "mark them with --control COLUMN=VALUE or a --platemap; or pass --normalize none, "
            "and what needs controls is left out"
        )
        raise InputError(found, hint=hint)
    counts = pl.DataFrame({"group": group_names(profiles, column), "control": controls})
    totals = counts.group_by("group").agg(pl.col("control").sum()).sort("group")
    poor = totals.filter(pl.col("control") < fewest)["group"].to_list()
    if poor:
        what = "plate(s)" if column == PLATE else f"value(s) of {column}"
        found = (
            f"{profiles.source}: {len(poor)} {what} have fewer than {fewest} negative controls "
            f"to normalise by, for example {poor[0]}"
        )
        raise InputError(
            found, hint="mark more wells with --control, drop the plates, or pass --normalize none"
        )
