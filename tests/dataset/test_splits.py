"""Nothing that judges a run has been seen by it, and a split that cannot exist says why."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.config import CropSettings, SupervisedSettings
from cellvim.dataset import CropSource, SampleKey, TrainingIndex, Window
from cellvim.dataset.labelled import LabelledDraws
from cellvim.dataset.splits import (
    LEAKY,
    PERTURBATION_HELD_OUT,
    PLATE_HELD_OUT,
    Division,
    FieldPart,
    LabelledWell,
    divide_wells,
)
from cellvim.dataset.views import MOST_CROPS, read_views, view_windows
from cellvim.errors import InputError, UsageError
from cellvim.store import FieldKey, PlateReader

CROP_PX = 16
MOA = SupervisedSettings(label="Metadata_Moa")
WELLS = tuple(f"{row}{column:02}" for row in "ABC" for column in range(1, 7))


def platemap(*, without: Sequence[str] = (), one_label_each: bool = False) -> pl.DataFrame:
    """Six drugs in three wells each; drugs 0 to 2 do one thing, drugs 3 to 5 another."""
    drugs = [number % 6 for number in range(len(WELLS))]
    rows = pl.DataFrame(
        {
            "Metadata_Well": WELLS,
            "Metadata_Perturbation": [f"drug {drug}" for drug in drugs],
            "Metadata_Moa": [f"moa {drug if one_label_each else drug // 3}" for drug in drugs],
        }
    )
    return rows.filter(~pl.col("Metadata_Well").is_in(without))


@pytest.fixture
def plates(make_plate: Any) -> list[PlateReader]:
    return [make_plate(name, wells=WELLS, sites=1, platemap=platemap()) for name in ("P1", "P2", "P3")]


def pixels_of(wells: Sequence[LabelledWell]) -> set[tuple[str, FieldKey, int, int]]:
    return {
        (well.plate.name, part.field, row, column)
        for well in wells
        for part in well.parts
        for row in range(part.window.top, part.window.top + part.window.height)
        for column in range(part.window.left, part.window.left + part.window.width)
    }


def divide(plates: Sequence[PlateReader], settings: SupervisedSettings, crop_px: int = CROP_PX) -> Division:
    return divide_wells(TrainingIndex(plates, crop_px=crop_px), settings, crop_px=crop_px)


def test_no_pixel_is_both_learned_from_and_judged_by(plates: list[PlateReader]) -> None:
    division = divide(plates, MOA)
    trained = pixels_of(division.training)
    judging = [pixels_of(split.wells) for split in division.held_out.values()]
    assert all(judging)
    assert all(trained.isdisjoint(pixels) for pixels in judging)
    assert sum(map(len, judging)) == len(set.union(*judging))


def test_each_set_holds_out_what_its_name_says(plates: list[PlateReader]) -> None:
    division = divide(plates, MOA)
    trained_plates = {well.plate.name for well in division.training}
    trained_drugs = {well.group for well in division.training}
    (held_plate,) = division.held_out_plates
    assert held_plate not in trained_plates
    assert trained_drugs.isdisjoint(division.held_out_groups)
    by_plate, by_drug, leaky = (
        division.held_out[name].wells for name in (PLATE_HELD_OUT, PERTURBATION_HELD_OUT, LEAKY)
    )
    assert {well.plate.name for well in by_plate} == {held_plate}
    assert {well.group for well in by_plate} <= trained_drugs
    assert {well.plate.name for well in by_drug} == trained_plates
    assert {well.group for well in by_drug} == set(division.held_out_groups)
    assert {well.label for well in by_drug} == set(division.classes)
    places = {(well.plate.name, well.well) for well in leaky}
    assert places == {(well.plate.name, well.well) for well in division.training}
    counts = division.counts
    assert (
        counts["wells_labelled"]
        == len(by_plate) + len(by_drug) + len(places) + counts["wells_held_out_twice"]
    )


def test_every_part_holds_a_crop(make_plate: Any) -> None:
    plate = make_plate("P1", wells=WELLS, sites=1, platemap=platemap())
    for crop_px in (16, 24):
        division = divide([plate], MOA, crop_px)
        for well in (*division.training, *division.held_out[LEAKY].wells):
            assert all(min(part.window.height, part.window.width) >= crop_px for part in well.parts)


def test_where_a_field_is_too_small_another_field_judges(make_plate: Any) -> None:
    wells = {
        sites: make_plate(f"P{sites}", wells=WELLS, sites=sites, platemap=platemap()) for sites in (1, 2)
    }
    division = divide([wells[2]], MOA, crop_px=32)
    for well in division.training:
        assert [part.field.site for part in well.parts] == [1]
    assert {part.field.site for well in division.held_out[LEAKY].wells for part in well.parts} == {2}
    alone = divide([wells[1]], MOA, crop_px=32).held_out[LEAKY]
    assert alone.wells == ()
    assert alone.reason is not None
    assert "each well has one field, which cannot hold two crops of 32 px" in alone.reason


@pytest.mark.parametrize(
    ("settings", "split", "reason"),
    [
        (SupervisedSettings(), PERTURBATION_HELD_OUT, "nobody can name one that they never saw"),
        (
            SupervisedSettings(label="Moa", group="Moa"),
            PERTURBATION_HELD_OUT,
            "nobody can name one that they never saw",
        ),
        (
            MOA.model_copy(update={"group": "Batch"}),
            PERTURBATION_HELD_OUT,
            "the plate maps have no column Batch",
        ),
        (MOA, PLATE_HELD_OUT, "all labelled wells are on one plate"),
    ],
)
def test_a_split_that_cannot_exist_says_why(
    make_plate: Any, settings: SupervisedSettings, split: str, reason: str
) -> None:
    division = divide([make_plate("P1", wells=WELLS, platemap=platemap())], settings)
    assert division.held_out[split].wells == ()
    assert reason in str(division.held_out[split].reason)


def test_a_label_of_one_perturbation_keeps_it(make_plate: Any) -> None:
    division = divide([make_plate("P1", wells=WELLS, platemap=platemap(one_label_each=True))], MOA)
    assert "fewer than two labels are shared" in str(division.held_out[PERTURBATION_HELD_OUT].reason)
    assert len(division.classes) == 6
    assert division.held_out_groups == ()


def test_adding_a_plate_moves_no_other(make_plate: Any) -> None:
    names = [f"plate {number}" for number in range(12)]
    plates = [make_plate(name, wells=WELLS[:4], sites=1, platemap=platemap()) for name in names]
    few, many = divide(plates[:10], MOA), divide(plates, MOA)
    assert 1 <= len(few.held_out_plates) < 10
    assert set(few.held_out_plates) == set(many.held_out_plates) & set(names[:10])


def test_plates_can_be_named(plates: list[PlateReader]) -> None:
    assert divide(plates, MOA.model_copy(update={"held_out_plates": ("P2",)})).held_out_plates == ("P2",)
    with pytest.raises(UsageError, match="names P9, which has no labelled well"):
        divide(plates, MOA.model_copy(update={"held_out_plates": ("P2", "P9")}))
    with pytest.raises(UsageError, match="every plate with labels"):
        divide(plates, MOA.model_copy(update={"held_out_plates": ("P1", "P2", "P3")}))


def test_labels_of_a_held_out_plate_that_nobody_learned_are_counted(make_plate: Any) -> None:
    strange = platemap().with_columns(Metadata_Moa=pl.lit("moa 9"))
    half = pl.concat([platemap()[:9], strange[9:]])
    plates = [
        make_plate("P1", wells=WELLS, platemap=platemap()),
        make_plate("P2", wells=WELLS, platemap=half),
    ]
    split = divide(
        plates, SupervisedSettings(label="moa", group="METADATA_MOA", held_out_plates=("P2",))
    ).held_out[PLATE_HELD_OUT]
    assert len(split.wells) == split.unlearnable_wells == 9


def test_wells_without_a_label_are_left_out_and_counted(make_plate: Any) -> None:
    plate = make_plate("P1", wells=WELLS, platemap=platemap(without=WELLS[:4]))
    division = divide([plate, make_plate("P2", wells=WELLS[:2])], MOA)
    assert division.counts["wells_without_label"] == 4 + 2
    assert {well.well for well in division.training} <= set(WELLS[4:])


def test_labels_that_are_not_there_are_an_error(make_plate: Any) -> None:
    with pytest.raises(InputError, match="none of the plates has a plate map"):
        divide([make_plate("P1")], MOA)
    plate = make_plate("P2", wells=WELLS, platemap=platemap())
    with pytest.raises(
        InputError, match=r"supervised\.label is Dose, but the plate maps have no such column"
    ):
        divide([plate], SupervisedSettings(label="Dose"))
    with pytest.raises(InputError, match=r"has 1 value\(s\)"):
        divide([make_plate("P3", wells=WELLS[:3], platemap=platemap())], MOA)


def test_draws_stay_inside_what_may_be_learned_from(plates: list[PlateReader]) -> None:
    index = TrainingIndex(plates, crop_px=CROP_PX)
    division = divide_wells(index, MOA, crop_px=CROP_PX)
    draws = LabelledDraws(index, division)
    plain = CropSettings(crop_px=CROP_PX, gain_jitter=0, is_flipped=False)
    source = CropSource(index, plain, batch_size=64, seed=0, draws=draws)
    batch = source.batch(3)
    assert batch.labels is not None
    assert set(batch.labels.tolist()) == {0, 1}
    wells = {(well.plate.name, part.field): (well, part) for well in division.training for part in well.parts}
    generator = np.random.default_rng(0)
    for sample in range(64):
        key = SampleKey(seed=0, step=0, sample=sample)
        drawn = draws.draw_field(draws.draw_group(generator), key, generator)
        well, part = wells[drawn.plate.name, drawn.field]
        assert drawn.window == part.window
        assert drawn.label == division.classes.index(well.label)
    torn = source.batch(3, range(10, 20))
    assert torn.labels is not None
    assert torn.labels.tolist() == batch.labels[10:20].tolist()


def test_a_well_is_judged_by_crops_that_do_not_overlap(make_plate: Any) -> None:
    plate = make_plate("P1", wells=("A01",), sites=2, side_px=100)
    parts = [FieldPart(field, Window(10, 0, 90, 100)) for field in plate.fields]
    well = LabelledWell(plate, "A01", "a", None, tuple(parts))
    for crop_px, count in ((24, MOST_CROPS), (40, 8), (90, 2)):
        views = view_windows(well, crop_px=crop_px)
        assert len(views) == count
        assert {view.field for view in views} == set(plate.fields)
        covered = pixels_of([replace(well, parts=tuple(views))])
        assert len(covered) == count * crop_px**2
        assert covered <= pixels_of([well])
        assert read_views(well, crop_px=crop_px).shape == (count, 3, crop_px, crop_px)


def test_all_doses_of_a_compound_are_on_one_side(make_plate: Any) -> None:
    """Three compounds of each mechanism, each at three doses: perturbations of their own, the same chemistry."""
    doses = [number // 6 for number in range(len(WELLS))]
    layout = platemap().with_columns(
        pl.col("Metadata_Perturbation").alias("Metadata_Compound"),
        pl.Series("Metadata_Perturbation", [f"drug {n % 6}@{doses[n]} uM" for n in range(len(WELLS))]),
    )
    plate = make_plate("P1", wells=WELLS, sites=1, platemap=layout)
    division = divide([plate], MOA)
    judged = {well.group for well in division.held_out[PERTURBATION_HELD_OUT].wells}
    assert division.group == "Metadata_Compound"
    assert judged
    assert judged.isdisjoint({well.group for well in division.training})
    by_dose = divide([plate], MOA.model_copy(update={"group": "perturbation"}))
    trained = {str(well.group).split("@")[0] for well in by_dose.training}
    assert trained & {str(well.group).split("@")[0] for well in by_dose.held_out[PERTURBATION_HELD_OUT].wells}


def test_plates_that_name_compounds_differently_share_their_groups(make_plate: Any) -> None:
    """P1 has a column `drug`, P2 a column `compound` with gaps, P3 none: what is held out is so on all of them."""
    drugs = platemap()["Metadata_Perturbation"]
    doses = pl.Series("Metadata_Perturbation", [f"{drug}@{n // 6} uM" for n, drug in enumerate(drugs)])
    gaps = [None if number % 3 == 0 else drug for number, drug in enumerate(drugs)]
    named = {"P1": [drugs.alias("Metadata_drug")], "P2": [pl.Series("Metadata_compound", gaps)]}
    plates = [
        make_plate(name, wells=WELLS, sites=1, platemap=platemap().with_columns(doses, *named.get(name, ())))
        for name in ("P1", "P2", "P3")
    ]
    division = divide(plates, MOA)
    groups = {well.group for well in division.training}
    assert groups | set(division.held_out_groups) == set(drugs)
    assert groups.isdisjoint(division.held_out_groups)
    circular = divide(plates, SupervisedSettings()).held_out[PERTURBATION_HELD_OUT].reason
    assert circular is not None
    assert "nobody can name one that they never saw" in circular


def test_an_empty_well_shows_no_label(make_plate: Any) -> None:
    controls = ["empty", "negcon", *[None] * (len(WELLS) - 2)]
    layout = platemap().with_columns(pl.Series("Metadata_ControlType", controls, dtype=pl.String))
    division = divide([make_plate("P1", wells=WELLS, sites=1, platemap=layout)], MOA)
    assert division.counts["wells_without_label"] == 1
    places = {well.well for split in division.held_out.values() for well in split.wells}
    assert {WELLS[0]}.isdisjoint(places | {well.well for well in division.training})
    assert WELLS[1] in places | {well.well for well in division.training}
