"""Pages of the real commands, made from tables and images whose names are scripts."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tifffile

from pipelines.torture.calling import call
from pipelines.torture.payloads import PAYLOADS

WELLS = ("A01", "A02", "B01", "B02")
SIDE_PX = 32
MODEL = {"width": 32, "depth": 1, "patch_px": 16, "decoder_width": 32, "position_grid": 2}


def write_pages(out: Path) -> Mapping[str, Path]:
    """Give the names to the real commands.

    Raises:
        RuntimeError: One of them failed.
    """
    images = write_images(out / "images")
    # A folder may have such a name, too, and stands in the command that a page shows.
    plates = out / f"plates {PAYLOADS[6]}"
    _run(
        "ingest",
        str(images),
        "--out",
        str(plates),
        "--platemap",
        str(write_map(out / "map.csv")),
        "--workers",
        "1",
    )
    settings = {
        "objective": "supervised", "steps": 2, "batch_size": 2, "model": MODEL, "crops": {"crop_px": SIDE_PX},
        "supervised": {"label": f"Metadata_{PAYLOADS[1]}"},
    }  # fmt: skip
    (out / "settings.yaml").write_text(json.dumps(settings))
    _run(
        "pretrain",
        str(plates),
        "--out",
        str(out / "run"),
        "--device",
        "cpu",
        "--config",
        str(out / "settings.yaml"),
    )
    _run(
        "evaluate", str(write_table(out / f"{PAYLOADS[10]}.parquet")), "--out", str(out / "report"),
        "--title", PAYLOADS[1], "--label", "Metadata_moa", "--null-size", "200", "--bootstraps", "20",
    )  # fmt: skip
    (quality,) = plates.glob("*.cellvim/qc.html")
    return {
        "report of `cellvim evaluate`": out / "report/report.html",
        "quality page of `cellvim ingest`": quality,
        "report of `cellvim pretrain`": out / "run/report.html",
    }


def write_images(folder: Path) -> Path:
    """Write a plate whose stains are the names, as a load_data.csv may give them."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    record: dict[str, list[str]] = {}
    for number, payload in enumerate(PAYLOADS):
        names = [f"{number:02d}-{well}-{payload.replace('/', '_')[:60]}.tif" for well in WELLS]
        for name in names:
            tifffile.imwrite(folder / name, draw.integers(100, 4000, (SIDE_PX, SIDE_PX), np.uint16))
        record[f"FileName_Orig{payload}"] = names
        record[f"PathName_Orig{payload}"] = ["."] * len(WELLS)
    record |= {
        "Metadata_Plate": [PAYLOADS[0]] * len(WELLS),
        "Metadata_Well": list(WELLS),
        "Metadata_Site": ["1"] * len(WELLS),
    }
    pl.DataFrame(record).write_csv(folder / "load_data.csv")
    return folder


def write_map(path: Path) -> Path:
    columns = {
        "well": list(WELLS),
        "perturbation": list(PAYLOADS[:4]),
        PAYLOADS[1]: ["a", "b", *PAYLOADS[6:8]],
    }
    pl.DataFrame(columns).write_csv(path)
    return path


def write_table(path: Path, *, features: int = 24, replicates: int = 2, controls: int = 16) -> Path:
    """Write profiles of two plates whose perturbations are the names."""
    draw = np.random.default_rng(0)
    kinds = [name for name in PAYLOADS for _ in range(replicates)] + [None] * controls
    centres: Mapping[str | None, Any] = {name: draw.normal(0, 3, features) for name in PAYLOADS} | {
        None: np.zeros(features)
    }
    wells = [f"{'ABCDEFGHIJKLMNOP'[place // 24]}{place % 24 + 1:02d}" for place in range(len(kinds))]
    tables = [
        pl.DataFrame(
            {
                "Metadata_Plate": plate, "Metadata_Well": wells,
                "Metadata_Perturbation": [name or "DMSO" for name in kinds],
                "Metadata_ControlType": [None if name else "negcon" for name in kinds],
                "Metadata_moa": [name and PAYLOADS[PAYLOADS.index(name) % 7] for name in kinds],
                f"Metadata_{PAYLOADS[6]}": [PAYLOADS[place % 5] for place in range(len(kinds))],
            }
        ).hstack(pl.DataFrame(np.stack([centres[name] + draw.normal(size=features) for name in kinds]).astype(np.float32),
                              schema=[f"emb_{number:04d}" for number in range(features)]))
        for plate in PAYLOADS[6:8]
    ]  # fmt: skip
    pl.concat(tables).write_parquet(path)
    return path


def _run(*arguments: str) -> None:
    ended = call(["--quiet", *arguments])
    if ended.code:
        message = f"cellvim {arguments[0]} ended with {ended.code}: {ended.words[-1000:]}"
        raise RuntimeError(message)
