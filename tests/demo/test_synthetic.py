"""Synthetic plates: same settings, same bytes; and the truth shows in plain measurements."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import filters, measure

from cellvim.atomic import read_json
from cellvim.config import DemoSettings
from cellvim.demo import synthetic
from cellvim.demo.cells import CHANNELS, draw_field
from cellvim.demo.microscope import Microscope
from cellvim.demo.phenotype import UNTREATED, catalogue
from cellvim.errors import OutputExistsError

# Never the demo's own seed (0): its effects must not be tuned on, or tested on, what it reports.
SEED = 20
SIDE_PX = 224


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> synthetic.SyntheticPlates:
    return synthetic.write_plates(tmp_path_factory.mktemp("a"), DemoSettings(plates=2, seed=SEED))


def fields(name: str, count: int = 6) -> np.ndarray:
    look = next(p.phenotype for p in catalogue() if p.name == name)
    drawn = [draw_field(look, side_px=SIDE_PX, generator=np.random.default_rng([5, k])) for k in range(count)]
    return np.stack(drawn)


def test_a_second_run_writes_the_same_bytes(written: synthetic.SyntheticPlates, tmp_path: Path) -> None:
    again = synthetic.write_plates(tmp_path, DemoSettings(plates=2, seed=SEED))
    first = sorted(path.relative_to(written.images) for path in written.images.rglob("*") if path.is_file())
    assert first == sorted(
        path.relative_to(again.images) for path in again.images.rglob("*") if path.is_file()
    )
    assert all((written.images / path).read_bytes() == (again.images / path).read_bytes() for path in first)
    assert written.truth.read_bytes() == again.truth.read_bytes()
    assert written.platemap.read_bytes() == again.platemap.read_bytes()


def test_a_plate_lost_midway_comes_back_and_the_others_stay(written: synthetic.SyntheticPlates) -> None:
    first, second = (written.images / layout.name for layout in written.layouts)
    kept = first / "TimePoint_1" / f"{first.name}_B02_s1_w1.TIF"
    when = kept.stat().st_mtime_ns
    lost = second / "TimePoint_1" / f"{second.name}_B02_s1_w3.TIF"
    was = lost.read_bytes()
    second.rename(written.images / f".tmp-{second.name}")
    synthetic.write_plates(written.truth.parent, DemoSettings(plates=2, seed=SEED))
    assert lost.read_bytes() == was
    assert kept.stat().st_mtime_ns == when


def test_plates_of_another_seed_are_not_mixed_in(written: synthetic.SyntheticPlates) -> None:
    with pytest.raises(OutputExistsError, match="other settings"):
        synthetic.write_plates(written.truth.parent, DemoSettings(plates=2, seed=SEED + 1))


def test_files_are_named_and_described_as_metaxpress_does(written: synthetic.SyntheticPlates) -> None:
    for layout in written.layouts:
        folder = written.images / layout.name / "TimePoint_1"
        names = {path.name for path in folder.glob("*.TIF")}
        assert names == {
            f"{layout.name}_{well}_s{site}_w{wave}.TIF"
            for well in layout.imaged
            for site in (1, 2)
            for wave in range(1, 6)
        }
        assert '"WaveName5", "Mito"' in (folder / f"{layout.name}.HTD").read_text()
    plane = tifffile.imread(folder / f"{layout.name}_{layout.imaged[0]}_s1_w1.TIF")
    assert plane.dtype == np.uint16
    assert plane.shape == (SIDE_PX, SIDE_PX)
    assert plane.max() < 65535


def test_truth_names_every_perturbation_and_the_missing_well(written: synthetic.SyntheticPlates) -> None:
    truth = read_json(written.truth)
    assert truth["is_synthetic"] is True
    assert [p["name"] for p in truth["perturbations"]] == [p.name for p in catalogue()]
    assert truth["plates"]["DEMO01"]["missing_well"] is None
    assert truth["plates"]["DEMO02"]["missing_well"] == written.layouts[1].missing


def nuclear_area(stains: np.ndarray) -> float:
    areas = []
    for dna in stains[:, CHANNELS.index("DNA")]:
        labels = measure.label(dna > filters.threshold_otsu(dna))
        areas += [region.area for region in measure.regionprops(labels) if region.area > 40]
    return float(np.median(areas))


def test_large_nuclei_are_large() -> None:
    ratio = nuclear_area(fields("nuc-1")) / nuclear_area(fields("DMSO"))
    assert ratio == pytest.approx(1.28**2, rel=0.15)


def test_a_stronger_compound_of_a_mechanism_does_more() -> None:
    areas = [nuclear_area(fields(name)) for name in ("DMSO", "nuc-3", "nuc-2", "nuc-1")]
    assert areas == sorted(areas)


def test_the_toxic_compound_leaves_fewer_cells() -> None:
    def covered(name: str) -> float:
        return float((fields(name)[:, CHANNELS.index("RNA")] > 0.1).mean())

    assert covered("toxic") < 0.4 * covered("DMSO")


def test_stress_fibers_show_as_bright_streaks_inside_cells() -> None:
    def streaks(name: str) -> float:
        drawn = fields(name)
        inside = drawn[:, CHANNELS.index("RNA")] > 0.3
        return float((drawn[:, CHANNELS.index("AGP")][inside] > 0.6).mean())

    assert streaks("actin-1") > 1.5 * streaks("DMSO")
    assert streaks("actin-1") > streaks("actin-2") > streaks("DMSO")


def test_the_inert_compound_is_drawn_exactly_as_the_control() -> None:
    np.testing.assert_array_equal(fields("inert", 1), fields("DMSO", 1))


def test_the_microscope_adds_gain_vignette_and_background() -> None:
    generator = np.random.default_rng(SEED)
    scope = replace(Microscope.drawn(5, generator), center=(0.5, 0.5), vignette=0.3)
    image = scope.image(np.ones((5, SIDE_PX, SIDE_PX), np.float32), generator)
    light = image.astype(float) - 100
    middle = light[:, 100:124, 100:124].mean((1, 2))
    np.testing.assert_allclose(middle, np.add(scope.exposure, scope.background), rtol=0.02)
    shade = scope.illumination(SIDE_PX)
    assert shade[0, 0] == pytest.approx(0.7)
    np.testing.assert_allclose(light[:, :12, :12].mean((1, 2)) / middle, shade[:12, :12].mean(), rtol=0.02)


def test_cells_of_one_field_differ_and_stay_apart() -> None:
    field = draw_field(UNTREATED, side_px=SIDE_PX, generator=np.random.default_rng(SEED))
    assert field.dtype == np.float32
    assert np.isfinite(field).all()
    assert field.min() >= 0
    labels = measure.label(field[0] > filters.threshold_otsu(field[0]))
    sizes = [region.area for region in measure.regionprops(labels)]
    assert 8 <= len(sizes) <= 35
    assert np.std(sizes) > 10
