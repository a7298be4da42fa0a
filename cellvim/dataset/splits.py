"""Which labelled wells a run learns from, and which it never sees, so that one run is judged in three ways."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cellvim.config import SupervisedSettings
from cellvim.dataset.index import TrainingIndex, Window
from cellvim.dataset.labels import (
    CONTROL_TYPE,
    PERTURBATION,
    compounds_by_well,
    find_column,
    require_column,
    values_by_well,
)
from cellvim.errors import InputError, UsageError
from cellvim.folds import fold_of, hash_of
from cellvim.store import FieldKey, PlateReader

PLATE_HELD_OUT = "plate_held_out"
PERTURBATION_HELD_OUT = "perturbation_held_out"
LEAKY = "random_cell (leaky)"
LABEL_IS_PERTURBATION = "the label is the perturbation, and nobody can name one that they never saw"


@dataclass(frozen=True)
class FieldPart:
    """The part of a field that one side of a split may look at."""

    field: FieldKey
    window: Window


@dataclass(frozen=True)
class LabelledWell:
    """A well, its label, and the parts of its fields that one side of a split may look at.

    Args:
        group: Value of the column whose values are held out whole; None if the plate map has none for this well.
    """

    plate: PlateReader
    well: str
    label: str
    group: str | None
    parts: tuple[FieldPart, ...]


@dataclass(frozen=True)
class HeldOut:
    """Wells that judge a run.

    Args:
        reason: Why there are none; None if there are.
        unlearnable_wells: Wells on this side of the split whose label no trained well has: nobody could name it.
    """

    wells: tuple[LabelledWell, ...]
    reason: str | None
    unlearnable_wells: int


@dataclass(frozen=True)
class Division:
    """All labelled wells, divided.

    Args:
        label: Column that is predicted.
        group: Column whose values are held out whole.
        classes: Labels of the trained wells, sorted.
        training: Wells to learn from, each with the parts that may be seen.
        held_out: The three sets that judge, by name; none of their pixels is in `training`.
        held_out_plates: Plates never trained on.
        held_out_groups: Values never trained on.
        counts: What became of all wells.
    """

    label: str
    group: str
    classes: tuple[str, ...]
    training: tuple[LabelledWell, ...]
    held_out: dict[str, HeldOut]
    held_out_plates: tuple[str, ...]
    held_out_groups: tuple[str, ...]
    counts: dict[str, int]


def divide_wells(index: TrainingIndex, settings: SupervisedSettings, *, crop_px: int) -> Division:
    """Hold out plates, values of a column, and parts of the fields that are trained on.

    A held-out value on a held-out plate is on no side: it would test two things at once. Plates and values are
    chosen by hash, so that others added later move none of them, except where a split would not exist otherwise.

    Args:
        index: Usable fields.
        settings: Label, group, plates to hold out, number of folds.
        crop_px: Side of a crop, which every part of a field can hold.

    Raises:
        InputError: No plate map, no such label, or fewer than two labels to learn.
        UsageError: A plate that shall be held out is not there, or no other is left.
    """
    label = require_column(index.plates, settings.label, asked_by="supervised.label")
    group, group_of = name_groups(index.plates, settings)
    wells, unlabelled = label_wells(index, label, group_of)
    plates = choose_plates(sorted({well.plate.name for well in wells}), settings)
    here = [well for well in wells if well.plate.name not in plates]
    elsewhere = [well for well in wells if well.plate.name in plates]
    is_circular = label == group or (settings.group is None and label == PERTURBATION)
    groups, no_groups = (
        choose_groups(here, group=group, folds=settings.folds)
        if group_of and not is_circular
        else (frozenset(), LABEL_IS_PERTURBATION if group_of else f"the plate maps have no column {group}")
    )
    trained = [well for well in here if well.group not in groups]
    classes = tuple(sorted({well.label for well in trained}))
    if len(classes) < 2:
        found = f"{label} has {len(classes)} value(s) on the plates that are trained on"
        raise InputError(found, hint="give more plates, another supervised.label, or other held_out_plates")
    sides = [_divide_fields(well, folds=settings.folds, crop_px=crop_px) for well in trained]
    return Division(
        label=label,
        group=group,
        classes=classes,
        training=tuple(seen for seen, _ in sides),
        held_out={
            PLATE_HELD_OUT: _judging(
                [well for well in elsewhere if well.group not in groups],
                classes,
                None if plates else "all labelled wells are on one plate",
            ),
            PERTURBATION_HELD_OUT: _judging(
                [well for well in here if well.group in groups], classes, no_groups
            ),
            LEAKY: _judging(
                [unseen for _, unseen in sides if unseen.parts],
                classes,
                f"each well has one field, which cannot hold two crops of {crop_px} px above each other",
            ),
        },
        held_out_plates=plates,
        held_out_groups=tuple(sorted(groups)),
        counts={
            "wells_labelled": len(wells),
            "wells_without_label": unlabelled,
            "wells_trained": len(trained),
            "wells_held_out_twice": sum(well.group in groups for well in elsewhere),
        },
    )


def label_wells(
    index: TrainingIndex, label: str, group_of: Mapping[tuple[PlateReader, str], str]
) -> tuple[list[LabelledWell], int]:
    """Usable wells with a label, with whole fields; and the number of those without. An empty well shows no label."""
    wells, unlabelled = [], 0
    for plate, fields_of_wells in index.plates_and_wells():
        labels = values_by_well(plate, label)
        controls = values_by_well(plate, CONTROL_TYPE)
        for fields in fields_of_wells:
            name = fields[0].well
            if name not in labels or controls.get(name) == "empty":
                unlabelled += 1
                continue
            parts = tuple(FieldPart(field, Window(0, 0, *plate.shape(field))) for field in fields)
            wells.append(LabelledWell(plate, name, labels[name], group_of.get((plate, name)), parts))
    return wells, unlabelled


def choose_plates(names: Sequence[str], settings: SupervisedSettings) -> tuple[str, ...]:
    """Plates to hold out: those asked for, or one fold by hash; at least one, and never all.

    Args:
        names: Plates with labelled wells.
    """
    asked = settings.held_out_plates
    absent = sorted(set(asked) - set(names))
    if absent:
        found = f"supervised.held_out_plates names {', '.join(absent)}, which has no labelled well here"
        raise UsageError(found, hint=f"plates with labels are {', '.join(names)}")
    if asked and len(set(asked)) == len(names):
        found = "supervised.held_out_plates names every plate with labels"
        raise UsageError(found, hint="leave a plate to learn from")
    if asked or len(names) < 2:
        return tuple(sorted(asked))
    ranked = sorted(names, key=lambda name: hash_of(name, salt=PLATE_HELD_OUT))
    chosen = [
        name for name in ranked if fold_of(name, folds=settings.folds, salt=PLATE_HELD_OUT) == 0
    ] or ranked[:1]
    return tuple(sorted(chosen[: len(names) - 1]))


def name_groups(
    plates: Sequence[PlateReader], settings: SupervisedSettings
) -> tuple[str, dict[tuple[PlateReader, str], str]]:
    """Column whose values are held out whole, and its value in each well that has one."""
    if settings.group is None:
        return compounds_by_well(plates)
    column = find_column(plates, settings.group)
    if column is None:
        return settings.group, {}
    values = {plate: values_by_well(plate, column) for plate in plates}
    return column, {(plate, well): value for plate, of in values.items() for well, value in of.items()}


def choose_groups(
    wells: Sequence[LabelledWell], *, group: str, folds: int
) -> tuple[frozenset[str], str | None]:
    """Values to hold out, one fold of them by hash, so that each label keeps one to be learned from.

    Where that leaves fewer than two labels to ask for, values of further labels are held out, in order of hash.

    Args:
        wells: Labelled wells on plates that are trained on.
        group: Column of the values, for the reason.
        folds: One fold of this many is held out.

    Returns:
        The values; and why there are none, if there are none.
    """
    labels_of: dict[str, set[str]] = defaultdict(set)
    for well in wells:
        if well.group is not None:
            labels_of[well.group].add(well.label)
    due = {value for value in labels_of if fold_of(value, folds=folds, salt=PERTURBATION_HELD_OUT) == 0}
    ranked = sorted(
        labels_of, key=lambda value: (value not in due, hash_of(value, salt=PERTURBATION_HELD_OUT))
    )
    spare = Counter(label for labels in labels_of.values() for label in labels)
    chosen, asked = set(), set[str]()
    for value in ranked:
        labels = labels_of[value]
        is_wanted = value in due or (len(asked) < 2 and not labels <= asked)
        if is_wanted and all(spare[label] > 1 for label in labels):
            chosen.add(value)
            asked |= labels
            spare.subtract(labels)
    if len(asked) < 2:
        return frozenset(), f"fewer than two labels are shared by two values of {group} or more"
    return frozenset(chosen), None


def _divide_fields(well: LabelledWell, *, folds: int, crop_px: int) -> tuple[LabelledWell, LabelledWell]:
    """Divide a well into what is trained on and what is not: a band at the foot of each field, or a field.

    Bands are a fold of the field, and no thinner than a crop. Where no field can hold a crop above its band,
    the last field is left out whole; a well of one such field is trained on whole.
    """
    upper, lower = [], []
    for part in well.parts:
        whole = part.window
        band = max(crop_px, whole.height // folds)
        if whole.height - band < crop_px:
            upper.append(part)
            continue
        upper.append(FieldPart(part.field, replace(whole, height=whole.height - band)))
        lower.append(FieldPart(part.field, replace(whole, top=whole.height - band, height=band)))
    if not lower and len(upper) > 1:
        lower = [upper.pop()]
    return replace(well, parts=tuple(upper)), replace(well, parts=tuple(lower))


def _judging(wells: Sequence[LabelledWell], classes: Sequence[str], reason_if_none: str | None) -> HeldOut:
    """Keep the wells that could be named, if they hold two labels or more."""
    known = tuple(well for well in wells if well.label in classes)
    unlearnable = len(wells) - len(known)
    if len({well.label for well in known}) < 2:
        few = "fewer than two labels of its wells are learned elsewhere"
        return HeldOut((), few if wells else reason_if_none or few, unlearnable)
    return HeldOut(known, None, unlearnable)
