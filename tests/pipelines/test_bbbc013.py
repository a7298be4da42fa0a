"""The BBBC013 study: dose response of made-up wells with a known answer, and of the real plate."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.config import IngestSettings, PretrainSettings
from cellvim.ingest import ingest_plates
from cellvim.store import PlateReader
from pipelines.baselines import intensity_statistics, write_baseline_table
from pipelines.bbbc013 import CONFIG, PATTERN, PLATE
from pipelines.bbbc013_doses import dose_response, paired_difference, write_shuffled_tables
from pipelines.bbbc013_page import results_page

DOSES = (1.0, 2.0, 4.0, 8.0, 16.0)


def plate_of(effect: float, *, seed: int = 0) -> pl.DataFrame:
    """Six untreated wells, four positive controls, and one compound in five doses, two wells each."""
    kinds = ["negcon"] * 6 + ["poscon"] * 4 + [None] * 10
    dose = [0.0] * 6 + [16.0] * 4 + [d for d in DOSES for _ in range(2)]
    noise = np.random.default_rng(seed).normal(size=(20, 8)).astype(np.float32)
    noise[:, 0] += effect * np.log2(1 + np.array(dose, np.float32))
    metadata = {
        "Metadata_Plate": ["P"] * 20,
        "Metadata_Well": [f"A{k:02d}" for k in range(1, 21)],
        "Metadata_Perturbation": [f"drug@{d:g} nM" if d else "DMSO" for d in dose],
        "Metadata_ControlType": kinds,
        "Metadata_Compound": ["DMSO"] * 6 + ["drug"] * 14,
        "Metadata_Dose": dose,
    }
    return pl.DataFrame(metadata | {f"f{k}": noise[:, k] for k in range(8)})


def written(table: pl.DataFrame, folder: Path) -> Path:
    table.write_parquet(folder / "table.parquet")
    return folder / "table.parquet"


def test_a_strong_response_is_found(tmp_path: Path) -> None:
    found = dose_response(written(plate_of(10.0), tmp_path))
    trend = found["compounds"]["drug"]
    assert trend["spearman"]["value"] > 0.95
    assert trend["spearman"]["low"] <= trend["spearman"]["value"] <= trend["spearman"]["high"]
    assert trend["p"] < 0.001
    assert list(trend["curve"]) == ["1", "2", "4", "8", "16"]
    assert found["z_prime"]["value"] > 0.5
    assert found["separation"]["value"] > 5
    assert found["high_dose_map"] > 0.9


def test_no_response_is_invented(tmp_path: Path) -> None:
    p = []
    for seed in range(10):
        found = dose_response(written(plate_of(0.0, seed=seed), tmp_path))
        assert found["z_prime"]["value"] < 0.5
        p.append(found["compounds"]["drug"]["p"])
    assert np.mean(np.array(p) < 0.05) <= 0.2


def test_shuffling_moves_labels_together_and_leaves_features(tmp_path: Path) -> None:
    path = written(plate_of(10.0), tmp_path)
    names = write_shuffled_tables(path, count=2)
    original, first, second = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("table", *names))
    assert first.select("^f.*$").equals(original.select("^f.*$"))
    assert not first["Metadata_Dose"].equals(second["Metadata_Dose"])
    labels = ["Metadata_Perturbation", "Metadata_Dose"]
    assert set(first.select(labels).iter_rows()) == set(original.select(labels).iter_rows())


def test_a_paired_difference_averages_seeds_and_resamples_doses() -> None:
    ap = {"a-0": [0.9, 0.7, 0.5, 0.5], "a-1": [0.7, 0.5, 0.5, 0.5], "b": [0.2, 0.2, 0.3, 0.3]}
    rows = [
        {"table": t, "Metadata_Well": f"A0{k}", "ap": x} for t, xs in ap.items() for k, x in enumerate(xs)
    ]
    doses = {"A00": "low", "A01": "low", "A02": "high", "A03": "high"}
    found = paired_difference(pl.DataFrame(rows), doses, ours=["a-0", "a-1"], theirs=["b"])
    assert found["value"] == pytest.approx((0.5 + 0.2) / 2)
    assert (found["low"], found["high"]) == (pytest.approx(0.2), pytest.approx(0.5))


def test_the_page_shows_every_table_and_dose() -> None:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    activity = {"activity": {"mean_map": interval, "fraction_significant": 0.0, "chance_map": 0.38}}
    trends = {name: {"spearman": interval} for name in ("Wortmannin", "LY294002")}
    rows = [
        {"table": "trained", "Metadata_Perturbation": f"Wortmannin@{dose} nM", "map": 0.7, "p": 0.1}
        for dose in (125, 3.91)
    ]
    results: dict[str, Any] = {
        "tables": ["trained"],
        "more_seeds": [],
        "by_dose": {"tables": {"trained": activity}, "perturbations": rows},
        "by_compound": {"tables": {"trained": activity}, "perturbations": []},
        "shuffled": {"tables": {"shuffled-0": activity}},
        "differences": {key: {"untrained": interval} for key in ("report", "report_by_compound")},
        "dose_response": {
            "trained": {
                **dict.fromkeys(("z_prime", "separation"), 0.5),
                "high_dose_map": 0.7,
                "compounds": trends,
            }
        },
    }
    page = results_page(results)
    assert "| trained | 0.500 (0.40 to 0.60) |" in page
    assert page.index("Wortmannin@3.91") < page.index("Wortmannin@125")
    assert "| trained - untrained | 0.500 (0.40 to 0.60) | 0.500 (0.40 to 0.60) |" in page
    assert "Other seeds" not in page


def test_the_shipped_config_loads() -> None:
    assert PretrainSettings.from_yaml(CONFIG).crops.crop_px == 112


@pytest.fixture(scope="module")
def plate(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> PlateReader:
    source, out = shared / "data" / "bbbc013", tmp_path_factory.mktemp("bbbc013")
    ingest_plates(
        IngestSettings(
            sources=(source / "images",),
            out=out,
            platemap=source / "platemap.csv",
            pattern=PATTERN,
            channels="1=GFP,2=DNA",
            plate=PLATE,
        )
    )
    return PlateReader(out / f"{PLATE}.ome.zarr")


def test_plain_intensity_follows_the_dose_on_the_real_plate(plate: PlateReader, tmp_path: Path) -> None:
    """The protein leaves the cytoplasm, so that the median of its channel falls: known before any model."""
    table = write_baseline_table(plate, intensity_statistics, tmp_path / "intensity.parquet")
    assert table.height == 48
    found = dose_response(tmp_path / "intensity.parquet")
    for compound in ("Wortmannin", "LY294002"):
        assert found["compounds"][compound]["spearman"]["value"] > 0.7
        assert found["compounds"][compound]["p"] < 0.01
