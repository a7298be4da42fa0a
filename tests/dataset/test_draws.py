"""Pairs show the same biology, on other plates where they can, and stay together however a step is divided."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from cellvim.config import CropSettings
from cellvim.dataset import CropSource, DrawnField, SampleKey, TrainingIndex
from cellvim.dataset.pairs import PairedDraws
from cellvim.errors import InputError

WELLS = ("A01", "A02", "B01", "B02")


def platemap(*perturbations: str | None) -> pl.DataFrame:
    controls = ["negcon" if name == "DMSO" else None for name in perturbations]
    return pl.DataFrame(
        {
            "Metadata_Well": WELLS[: len(perturbations)],
            "Metadata_Perturbation": perturbations,
            "Metadata_ControlType": controls,
        }
    )


def drawn_pairs(draws: PairedDraws, steps: int = 60) -> list[tuple[DrawnField, DrawnField]]:
    pairs = []
    for step in range(steps):
        group = draws.draw_group(np.random.default_rng(step))
        keys = [SampleKey(seed=1, step=step, sample=sample) for sample in range(2)]
        first, second = (draws.draw_field(group, key, np.random.default_rng(7)) for key in keys)
        pairs.append((first, second))
    return pairs


def draw(plates: list[Any], positives: Any = "replicate") -> PairedDraws:
    return PairedDraws(TrainingIndex(plates, crop_px=32), positives=positives)


def test_a_partner_is_a_replicate_on_another_plate(make_plate: Any) -> None:
    maps = {"P1": platemap("a", "b", "a", "b"), "P2": platemap("b", "a"), "P3": platemap("b")}
    plates = [make_plate(name, wells=WELLS[: rows.height], platemap=rows) for name, rows in maps.items()]
    draws = draw(plates)
    names = {
        (plate.name, well): name
        for plate in plates
        for well, name in maps[plate.name].select("Metadata_Well", "Metadata_Perturbation").iter_rows()
    }
    pairs = drawn_pairs(draws)
    for first, second in pairs:
        assert first.plate.name != second.plate.name
        assert names[first.plate.name, first.field.well] == names[second.plate.name, second.field.well]
        assert first.label == second.label
    assert len({(second.plate.name, second.field) for _, second in pairs}) == 2 * 7
    assert draws.count_kinds() == {"replicate": 7, "field": 0, "crop": 0}


def test_without_a_replicate_the_partner_is_of_the_same_well(make_plate: Any) -> None:
    plates = [
        make_plate("P1", platemap=platemap("DMSO", "only here", None, "twice here")),
        make_plate("P2", sites=1, platemap=platemap("DMSO", "DMSO")),
        *(make_plate(name, wells=("A01",), platemap=platemap("elsewhere")) for name in ("P3", "P4")),
    ]
    draws = draw(plates)
    alone = [pair for pair in drawn_pairs(draws) if pair[0].plate.name in ("P1", "P2")]
    for first, second in alone:
        assert (first.plate.name, first.field.well) == (second.plate.name, second.field.well)
        assert (first.field == second.field) == (first.plate.name == "P2")
    assert {first.plate.name for first, _ in alone} == {"P1", "P2"}
    assert draws.count_kinds() == {"replicate": 2, "field": 4, "crop": 4}


def test_wells_of_one_perturbation_share_a_label_and_others_do_not(make_plate: Any) -> None:
    plates = [make_plate(name, platemap=platemap("DMSO", "DMSO", "a", None)) for name in ("P1", "P2")]
    label_of = {
        (one.plate.name, one.field.well): one.label for pair in drawn_pairs(draw(plates)) for one in pair
    }
    assert len(label_of) == 8
    controls = {label_of[plate, well] for plate in ("P1", "P2") for well in ("A01", "A02")}
    assert len(controls) == 1
    assert label_of["P1", "B01"] == label_of["P2", "B01"]
    assert len(set(label_of.values())) == 4


def test_plates_of_other_channels_are_no_partners(make_plate: Any) -> None:
    plates = [
        make_plate("P1", platemap=platemap("a", "b")),
        make_plate("P2", channels=("ER", "AGP"), platemap=platemap("a", "b")),
    ]
    with pytest.raises(InputError, match="no perturbation is on two plates with the same channels"):
        draw(plates)


def test_without_control_types_a_warning_says_what_that_means(
    make_plate: Any, caplog: pytest.LogCaptureFixture
) -> None:
    layout = platemap("DMSO", "a")
    draw([make_plate(name, platemap=layout) for name in ("P1", "P2")])
    assert not caplog.records
    draw([make_plate(name, platemap=layout.drop("Metadata_ControlType")) for name in ("P3", "P4")])
    assert "untreated wells are drawn towards each other" in caplog.text


def test_pairs_of_a_well_need_no_labels(make_plate: Any) -> None:
    plates = [make_plate("P1"), make_plate("P2", platemap=platemap("a"))]
    draws = draw(plates, "well")
    for first, second in drawn_pairs(draws):
        assert (first.plate, first.field.well) == (second.plate, second.field.well)
        assert first.field != second.field
    assert draws.count_kinds() == {"replicate": 0, "field": 8, "crop": 0}
    with pytest.raises(InputError, match="none of the plates has a plate map"):
        draw(plates[:1])


def test_a_slice_of_a_step_holds_the_same_pairs(make_plate: Any) -> None:
    plates = [make_plate(name, platemap=platemap("a", "b", "c", "d")) for name in ("P1", "P2")]
    index = TrainingIndex(plates, crop_px=32)
    draws = PairedDraws(index, positives="replicate")
    source = CropSource(index, CropSettings(crop_px=32), batch_size=8, seed=0, draws=draws)
    whole, part = source.batch(5), source.batch(5, range(4, 8))
    torch.testing.assert_close(part.images, whole.images[4:], rtol=0, atol=0)
    assert whole.labels is not None
    assert part.labels is not None
    assert part.labels.tolist() == whole.labels[4:].tolist()
    assert whole.labels[0::2].tolist() == whole.labels[1::2].tolist()
