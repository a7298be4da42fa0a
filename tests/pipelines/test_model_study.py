"""The model study: its statistics on differences with a known answer, and the whole of it in small."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from cellvim.atomic import read_json
from cellvim.config import EmbedSettings, PretrainSettings
from cellvim.embed import embed_plates
from pipelines.model_study.jobs import list_runs, run_study, write_page
from pipelines.model_study.plates import SyntheticSize, list_compounds, novel_compounds, synthetic_plates
from pipelines.model_study.reconstruction import Crops, linear_errors, share_by_stain, share_explained
from pipelines.model_study.results import METRICS, Comparison, StudyResults
from pipelines.model_study.run import CONFIG, Study, average_stains, cut_block, finish_variant
from pipelines.model_study.statistics import Difference, holm, paired_difference
from pipelines.model_study.variants import BLOCKS, DEFAULT, VARIANTS, rows_of, variants_of

SEEDS, UNITS, TRIALS = 3, 24, 400
# Three standard errors of a share of 5 % among 400 trials, rounded up, above the 5 % that is promised.
MOST_FALSE_ALARMS = 0.085
TINY = SyntheticSize(learned=1, judged=2, side_px=48, sites=1)


def noise(generator: np.random.Generator, *, by_seed: float, by_unit: float) -> np.ndarray:
    """Differences around 0 that share something within a seed, and something within a unit."""
    return (
        by_seed * generator.normal(size=(SEEDS, 1))
        + by_unit * generator.normal(size=(1, UNITS))
        + generator.normal(size=(SEEDS, UNITS))
    )


@pytest.mark.parametrize(("by_seed", "by_unit"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_noise_is_rarely_called_a_difference(by_seed: float, by_unit: float) -> None:
    generator = np.random.default_rng(1)
    alarms = [
        paired_difference(noise(generator, by_seed=by_seed, by_unit=by_unit)).excludes_zero
        for _ in range(TRIALS)
    ]
    assert np.mean(alarms) <= MOST_FALSE_ALARMS


def test_a_bootstrap_of_three_seeds_would_call_noise_a_difference() -> None:
    """Why the interval is not one: half of the variance by seed is enough."""
    generator = np.random.default_rng(2)
    alarms = []
    for _ in range(100):
        found = noise(generator, by_seed=1.0, by_unit=1.0)
        draws = generator.integers(SEEDS, size=(300, SEEDS)), generator.integers(UNITS, size=(300, UNITS))
        means = [found[np.ix_(seed, unit)].mean() for seed, unit in zip(*draws, strict=True)]
        low, high = np.quantile(means, [0.025, 0.975])
        alarms.append(low > 0 or high < 0)
    assert np.mean(alarms) > MOST_FALSE_ALARMS


def test_a_known_difference_is_found_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(3)
    found = [paired_difference(1.0 + noise(generator, by_seed=0.1, by_unit=0.5)) for _ in range(TRIALS)]
    assert np.mean([difference.excludes_zero for difference in found]) > 0.9
    covered = [d.low <= 1.0 <= d.high for d in found if d.low is not None and d.high is not None]
    assert np.mean(covered) >= 1 - MOST_FALSE_ALARMS


def test_interval_and_p_value_agree() -> None:
    generator = np.random.default_rng(4)
    for shape in ((3, 24), (3, 1), (1, 24)):
        for shift in (0.0, 0.4):
            found = paired_difference(shift + generator.normal(size=shape))
            assert found.p is not None
            assert found.excludes_zero == (found.p < 0.05)


def test_one_number_has_no_interval_and_no_noise_is_certain() -> None:
    assert paired_difference(np.array([[0.3]])) == Difference(0.3)
    assert paired_difference(np.zeros((3, 5))) == Difference(0.0, 0.0, 0.0, 1.0)


def test_holm_is_what_its_definition_says() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_rule_tells_found_from_suggested_from_noise() -> None:
    assert Comparison(Difference(0.1, 0.05, 0.15, 0.001), 0.01).finding == "better"
    assert Comparison(Difference(-0.1, -0.15, -0.05, 0.01), 0.08).finding == "suggested worse"
    assert Comparison(Difference(0.1, -0.05, 0.25, 0.2), 0.9).finding == "noise"


def test_a_stain_that_follows_from_the_others_is_explained_by_them() -> None:
    pixels = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    pixels[:, 2] = 0.6 * pixels[:, 0] - 0.8 * pixels[:, 1]
    crops = Crops(pixels, ("a", "a", "a", "b", "b", "b"), ("x", "y", "z"))
    errors = linear_errors(crops, crops)
    assert share_by_stain(errors)["z"] == pytest.approx(1, abs=1e-5)
    assert set(share_explained(errors)) == {"a", "b"}


def test_every_variant_changes_one_factor_and_loads() -> None:
    default = PretrainSettings.from_yaml(CONFIG).model_dump()
    for variant in VARIANTS:
        changed = PretrainSettings.from_yaml(CONFIG, **variant.changes).model_dump()
        sections = [name for name, value in changed.items() if value != default[name]]
        assert bool(sections) == bool(variant.changes)
        assert set(sections) <= {*variant.changes}
    assert len({variant.folder for variant in VARIANTS}) == len(VARIANTS)


def test_the_default_comes_first_and_a_seed_is_finished_before_the_next(tmp_path: Path) -> None:
    jobs = list_runs(Study(tmp_path, tmp_path, (0, 1, 2)))
    assert {job.variant for job in jobs[:2]} == {DEFAULT}
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    trained = [job for job in jobs if job.variant in {v.name for v in VARIANTS if v.name != "untrained"}]
    assert len(trained) == 3 * (len(variants_of("synthetic")) + len(variants_of("bbbc013")) - 2)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two trainings of two steps each, on plates of tiny fields."""
    recipe = {
        "steps": 2, "batch_size": 2, "crops": {"crop_px": 32}, "model": {"position_grid": 2, "width": 16}
    }  # fmt: skip
    study = Study(tmp_path_factory.mktemp("study"), None, (71,), TINY, recipe)
    run_study(study, workers=1, only=[DEFAULT, "divisor: width", "baseline"])
    return study


def test_the_study_runs_through_and_its_page_shows_every_row(small: Study, tmp_path: Path) -> None:
    write_page(small, tmp_path / "study.md")
    page = (tmp_path / "study.md").read_text()
    for row in (
        DEFAULT,
        "divisor: width, dense scale 0.25",
        "default, block 6",
        "intensity statistics",
    ):
        assert f"| {row} |" in page
    assert "images/study_synthetic.png" in page
    assert (tmp_path / "images" / "study_synthetic.png").stat().st_size < 200_000
    assert "(nan" not in page
    assert " nan" not in page


def test_judged_plates_hold_compounds_that_were_never_learned_from(small: Study) -> None:
    names = {compound.name for compound in list_compounds(1.0)}
    assert novel_compounds() < names
    assert 2 * len(novel_compounds()) == len(names)
    folder = small.folder("synthetic", 71)
    rows = pl.read_csv(folder / "platemap.csv")
    on_learned = set(rows.filter(pl.col("Metadata_Plate") == "LEARN1")["Metadata_Perturbation"])
    assert not on_learned & novel_compounds()
    plates = synthetic_plates(folder, TINY)
    assert sorted((*plates.learned, *plates.judged)) == sorted((folder / "plates").glob("*.ome.zarr"))


def test_a_finished_study_is_not_run_again(small: Study) -> None:
    result = small.result("synthetic", VARIANTS[0], 71)
    written = result.stat().st_mtime_ns
    assert finish_variant(small, "synthetic", VARIANTS[0], 71) == result
    assert result.stat().st_mtime_ns == written


def test_every_metric_of_every_row_is_there(small: Study) -> None:
    results = StudyResults.read(small)
    for metric in METRICS["synthetic"]:
        assert results.has("synthetic", DEFAULT, metric)
        assert len(results.against_default["synthetic"][metric]) <= len(rows_of("synthetic"))
    assert len(results.contents["synthetic"][DEFAULT]["retrieval"][71]) == 24
    assert set(read_json(small.result("synthetic", VARIANTS[0], 71))["stains"]) == {
        "DNA", "ER", "RNA", "AGP", "Mito"
    }  # fmt: skip


def test_cut_features_are_those_that_embed_would_have_given(small: Study, tmp_path: Path) -> None:
    folder = small.out / "runs" / "synthetic-default-71"
    plates = tuple(sorted((small.out / "synthetic-71" / "plates").glob("JUDGE*.ome.zarr")))
    shared = {"plates": plates, "model": folder / "run"}
    cases = {
        "all": (
            {"pool": "all"},
            average_stains(pl.read_parquet(folder / "tables" / "final.parquet"), stains=5),
        ),
        "block": (
            {"layers": (BLOCKS - 2,)},
            cut_block(pl.read_parquet(folder / "tables" / "blocks.parquet"), BLOCKS - 2, stains=5),
        ),
    }
    for name, (settings, cut) in cases.items():
        out = tmp_path / f"{name}.parquet"
        embed_plates(EmbedSettings.checked({**shared, **settings, "out": out}))
        direct = pl.read_parquet(out)
        ours, theirs = (table.select("^emb_.*$").to_numpy() for table in (cut, direct))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
