"""A made-up study to lay out: plates, perturbations with a known strength, pictures, and hostile names."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from cellvim.evaluate.report import ReportContent

QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
TASKS = ("activity", "distinctiveness", "replicate_retrieval")
NAMES = (
    "taxol@3 uM", "cytochalasin D@10 uM", "nocodazole@1 uM", "wortmannin@2 uM", "LY294002@20 uM",
    "latrunculin B@1 uM", "rapamycin@0.5 uM", "staurosporine@0.1 uM", "aspirin@10 uM",
)  # fmt: skip


def make_content(
    *,
    plates: int = 3,
    rows: int = 6,
    columns: int = 8,
    names: tuple[str, ...] = NAMES,
    tables: tuple[str, ...] = ("trained", "untrained", "intensity"),
    is_synthetic: bool = True,
    most_pictures: int = 1000,
) -> ReportContent:
    """Lay out plates of `rows` x `columns` wells: controls in the first column, one well missing."""
    generator = np.random.default_rng(0)
    wells = make_wells(generator, plates, rows, columns, names)
    metrics = [{"name": table, "tasks": make_metrics(0.12 * place)} for place, table in enumerate(tables)]
    return ReportContent(
        title="Actin and tubulin screen",
        is_synthetic=is_synthetic,
        wells=wells,
        perturbations=make_perturbations(generator, names, tables, plates),
        neighbors=make_neighbors(wells),
        thumbnails=make_thumbnails(generator, wells.head(most_pictures)),
        metrics={"tables": metrics, "tasks": metrics[0]["tasks"], "normalize": "sphere"},
        facts=make_facts(),
    )


def make_wells(
    generator: np.random.Generator, plates: int, rows: int, columns: int, names: tuple[str, ...]
) -> pl.DataFrame:
    records = []
    for plate in range(plates):
        for row in range(rows):
            for column in range(columns):
                if (plate, row, column) == (1, 2, 3):
                    continue
                name = "DMSO" if column == 0 else names[(row * (columns - 1) + column - 1) % len(names)]
                strength = names.index(name) / len(names) * 6 if name in names else -1.0
                angle = names.index(name) if name in names else 0.0
                noise = generator.normal(size=4)
                x = strength * np.cos(angle) + noise[0] + 0.5 * plate
                y = strength * np.sin(angle) + noise[1]
                records.append(
                    {
                        "Metadata_Plate": f"BR{plate:05d}",
                        "Metadata_Well": f"{chr(ord('A') + row)}{column + 1:02d}",
                        "Metadata_Perturbation": name,
                        "Metadata_ControlType": "negcon" if column == 0 else "poscon" if name == names[0] else None,
                        "Metadata_Mechanism": f"mechanism {int(angle) % 4}",
                        "pca_1": x,
                        "pca_2": y,
                        "umap_1": x + noise[2],
                        "umap_2": y + noise[3],
                        "activity_ap": None if column == 0 else float(np.clip(0.25 + strength / 7, 0, 1)),
                        "n_fields": 4,
                    }
                )  # fmt: skip
    return pl.DataFrame(records, infer_schema_length=None)


def make_perturbations(
    generator: np.random.Generator, names: tuple[str, ...], tables: tuple[str, ...], plates: int
) -> pl.DataFrame:
    records = []
    for table_place, table in enumerate(tables):
        for place, name in enumerate(names):
            record: dict[str, Any] = {
                "table": table, "Metadata_Perturbation": name, "replicates": 3 * plates, "plates": plates,
            }  # fmt: skip
            for task in TASKS:
                strength = float(np.clip((place + 1) / len(names) - 0.1 * table_place, 0.05, 1))
                strength = float(np.clip(strength + generator.normal(scale=0.04), 0.02, 1))
                p = max(1e-4, float(10 ** (-4.6 * strength)))
                record |= {
                    f"{task}_map": strength, f"{task}_normalized_map": (strength - 0.2) / 0.8,
                    f"{task}_p": p, f"{task}_q": min(1.0, 1.6 * p), f"{task}_smallest_p": 1e-4,
                }  # fmt: skip
            records.append(record)
    return pl.DataFrame(records)


def make_metrics(penalty: float) -> dict[str, Any]:
    def estimate(value: float, margin: float = 0.06) -> dict[str, float]:
        return {"value": value - penalty, "low": value - penalty - margin, "high": value - penalty + margin}

    tasks: dict[str, Any] = {
        task: {
            "mean_map": estimate(0.83 - 0.1 * place),
            "mean_normalized_map": 0.7,
            "fraction_significant": 0.78,
            "chance_map": 0.31,
        }
        for place, task in enumerate(TASKS)
    }
    tasks["probe"] = {"label": "Metadata_Mechanism", "wells": 120}
    splits = {"plate_held_out": 0.74, "random_well (leaky)": 0.91}
    tasks["probe"] |= {
        split: {
            "accuracy": estimate(value), "macro_f1": estimate(value - 0.03), "shuffled": {"accuracy": 0.12}, "chance": 0.14,
        }
        for split, value in splits.items()
    }  # fmt: skip
    tasks["probe"]["perturbation_held_out"] = {"reason": "fewer than two labels are shared"}
    return tasks


def make_neighbors(wells: pl.DataFrame) -> pl.DataFrame:
    """Five neighbours for one well of each perturbation: nearest by the made-up coordinates."""
    points = wells.select("pca_1", "pca_2").to_numpy()
    records = []
    for query in (
        wells.with_row_index()
        .group_by("Metadata_Perturbation", maintain_order=True)
        .first()
        .iter_rows(named=True)
    ):
        distance = np.linalg.norm(points - points[query["index"]], axis=1)
        for rank, place in enumerate(np.argsort(distance)[1:6], start=1):
            other = wells.row(int(place), named=True)
            records.append(
                {
                    "Metadata_Plate": query["Metadata_Plate"], "Metadata_Well": query["Metadata_Well"], "rank": rank,
                    "neighbor_plate": other["Metadata_Plate"], "neighbor_well": other["Metadata_Well"],
                    "similarity": float(np.exp(-distance[place])),
                }
            )  # fmt: skip
    return pl.DataFrame(records)


def make_thumbnails(generator: np.random.Generator, wells: pl.DataFrame, side: int = 96) -> pl.DataFrame:
    """Blobs in three colours: enough to see that pictures arrive where they belong."""
    yy, xx = np.mgrid[:side, :side]
    pngs = []
    for _ in range(wells.height):
        picture = np.zeros((side, side, 3))
        for _cell in range(9):
            y, x = generator.uniform(0, side, 2)
            for channel, radius in enumerate((6, 11, 4)):
                picture[..., channel] += np.exp(-((yy - y) ** 2 + (xx - x) ** 2) / (2 * radius**2))
        noisy = picture * 150 + generator.normal(scale=6, size=picture.shape)
        pngs.append(imagecodecs.png_encode(np.clip(noisy, 0, 255).astype(np.uint8)))
    return wells.select("Metadata_Plate", "Metadata_Well").with_columns(pl.Series("png", pngs))


def make_facts() -> dict[str, Any]:
    return {
        "command": ["cellvim", "evaluate", "trained.parquet", "untrained.parquet", "--out", "evaluation"],
        "versions": {"cellvim": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
        "settings": {"normalize": "sphere", "tasks": list(TASKS), "null_size": 10000, "seed": 0},
        "inputs": {"trained.parquet": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
        "counts": {"wells": 143, "wells without profile": 1},
        "model_cards": {"trained": {"model": {"width": 96, "depth": 6}, "channels": ["DNA", "actin"], "steps": 1000}},
        "warnings": [
            "activity: with 9 replicates no p below 0.0001 can be reached",
            "BR00001: well C04 has no profile (4 of 5 channels unreadable)",
        ],
    }  # fmt: skip


@pytest.fixture(scope="session")
def new_content() -> Callable[..., ReportContent]:
    return make_content


@pytest.fixture(scope="session")
def content() -> ReportContent:
    return make_content()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("needs the system's Chromium (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield browser
        browser.close()


def opener(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open reports; every message, error, dialog and request of theirs fails the test."""
    said: list[str] = []
    contexts: list[BrowserContext] = []

    def open_report(path: Path, *, width: int = 1280, scheme: Any = "light", fragment: str = "") -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: None if is_own(request.url, path) else said.append(request.url))
        page.goto(path.as_uri() + fragment)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_report
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    yield from opener(browser)


@pytest.fixture(scope="module")
def open_once(browser: Browser) -> Iterator[Callable[..., Page]]:
    """The same for a page that all tests of a module share."""
    yield from opener(browser)


def is_own(url: str, path: Path) -> bool:
    return url.startswith("data:") or url.partition("#")[0] == path.as_uri()
