"""Plate layouts of the demo: what is where, and that position tells nothing."""

import csv
import io

import pytest

from cellvim.demo.layout import REPLICATES, draw_layouts, platemap_csv
from cellvim.demo.phenotype import MECHANISMS, UNTREATED, catalogue


@pytest.mark.parametrize("plates", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_no_perturbation_keeps_its_well_on_all_plates(plates: int, seed: int) -> None:
    layouts = draw_layouts(plates, seed=seed)
    for well, content in layouts[0].wells.items():
        elsewhere = {layout.wells[well].name for layout in layouts}
        assert content.kind == "control" or elsewhere != {content.name}


def test_every_plate_holds_every_perturbation_and_enough_controls() -> None:
    for layout in draw_layouts(3, seed=11):
        names = [content.name for content in layout.wells.values()]
        assert all(names.count(p.name) == REPLICATES for p in catalogue() if p.kind != "control")
        assert names.count("DMSO") == 16


def test_one_control_well_is_named_but_never_imaged() -> None:
    layouts = draw_layouts(3, seed=11)
    missing = [(layout.name, layout.missing) for layout in layouts if layout.missing]
    assert len(missing) == 1
    rows = list(csv.DictReader(io.StringIO(platemap_csv(layouts))))
    named = {(row["Metadata_Plate"], row["Metadata_Well"]): row["Metadata_ControlType"] for row in rows}
    assert named[missing[0]] == "negcon"
    assert sum(len(layout.imaged) for layout in layouts) == len(rows) - 1


def test_the_catalogue_is_what_the_documentation_says() -> None:
    kinds = [p.kind for p in catalogue()]
    assert (kinds.count("active"), kinds.count("inert"), kinds.count("toxic")) == (10, 1, 1)
    assert {p.mechanism for p in catalogue() if p.kind == "active"} == set(MECHANISMS)
    assert next(p for p in catalogue() if p.kind == "inert").phenotype == UNTREATED
