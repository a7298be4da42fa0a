"""Every stage as a command to torture: small plates, a tiny model and a table, and what each stage makes of them."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cellvim.atomic import TEMPORARY_MARK, write_parquet, write_text
from cellvim.config import ModelSettings, PretrainSettings
from cellvim.store import FieldKey, PlateWriter
from pipelines.torture.screen import NAME, copy_screen, ingest_command

PLATES = ("P1", "P2")
CHANNELS = ("DNA", "ER", "Mito")
CROP_PX = 32
WELLS = ("A01", "A02", "B01", "B02")
MODEL: dict[str, object] = {"width": 64, "depth": 2, "patch_px": 8, "decoder_width": 64, "position_grid": 4}
STEPS = 12
TABLE = "wells.parquet"
TABLE_FEATURES = 96
TABLE_WELLS = 48


@dataclass(frozen=True)
class Job:
    """A command that writes into one folder.

    Attributes:
        name: Of the stage.
        package: What its command imports, where it takes its time.
        command: From the folder that receives everything, to the command line as a user types it.
        lock: File below that folder which the stage holds while it writes.
        with_times: Names of files that tell when and how fast a run was, and so differ between any two.
    """

    name: str
    package: str
    command: Callable[[Path], list[str]]
    lock: str
    with_times: tuple[str, ...]

    def results(self, folder: Path) -> Mapping[str, Path]:
        """Every file below the folder that two runs must have in common, temporary ones too."""
        return {name: path for name, path in all_files(folder).items() if path.name not in self.with_times}


def ingest_job(data: Path, folder: Path, *, wells: int) -> Job:
    """`cellvim ingest` of a plate of real images, from the folder of real plates."""
    source = copy_screen(data, folder / "source", wells=wells)
    lock = f"plates/{NAME}.cellvim/lock"
    return Job(
        "ingest", "cellvim.ingest", lambda out: ingest_command(source, out / "plates"), lock, ("run.json",)
    )


def pretrain_job(folder: Path) -> Job:
    """`cellvim pretrain` of a few steps, a checkpoint every other one."""
    plate = write_plate(folder / "plates", PLATES[0])
    settings: dict[str, object] = {
        "steps": STEPS, "batch_size": 2, "checkpoint_every": 2, "model": MODEL, "crops": {"crop_px": CROP_PX},
    }  # fmt: skip
    write_text(folder / "settings.yaml", PretrainSettings.checked(settings).to_yaml())
    start = cellvim("pretrain", str(plate), "--device", "cpu", "--config", str(folder / "settings.yaml"))
    return Job(
        "pretrain",
        "cellvim.pretrain",
        lambda out: [*start, "--out", str(out / "run")],
        "run/checkpoints/lock",
        ("run.json", "report.html", "attempts.json"),
    )


def embed_job(folder: Path, *, plates: int = 3) -> Job:
    """`cellvim embed` of some plates, one row per tile, so that the table is of some size."""
    paths = [str(write_plate(folder / "plates", f"P{number + 1}")) for number in range(plates)]
    start = cellvim("embed", *paths, "--device", "cpu", "--model", str(write_model(folder / "model")))
    start += ["--level", "crop", "--tile-px", "16"]
    return Job(
        "embed",
        "cellvim.embed",
        lambda out: [*start, "--out", str(out / f"tables/{TABLE}")],
        f"tables/{TABLE}.parts/lock",
        ("wells.run.json",),
    )


def normalize_job(folder: Path) -> Job:
    """`cellvim normalize` of a table, and of what was fitted a file of its own."""
    start = cellvim("normalize", str(write_table(folder / "wells.parquet")))
    return Job(
        "normalize",
        "cellvim.evaluate.normalizing",
        lambda out: [
            *start,
            "--out",
            str(out / "tables/profiles.parquet"),
            "--save",
            str(out / "screen.fit"),
        ],
        "tables/profiles.parquet.parts/lock",
        ("profiles.run.json",),
    )


def evaluate_job(folder: Path) -> Job:
    """`cellvim evaluate` of so few wells that no map of them has to be computed, which takes most of its time."""
    table = pl.read_parquet(write_table(folder / "wells.parquet")).filter(
        pl.col("Metadata_Plate") == PLATES[0]
    )
    few = [table.filter(pl.col("Metadata_Perturbation") == name).head(2) for name in ("DMSO", "drug1")]
    write_parquet(folder / "few.parquet", pl.concat(few))
    start = cellvim("evaluate", str(folder / "few.parquet"), "--tasks", "activity", "--normalize", "none")
    start += ["--null-size", "200", "--bootstraps", "20"]
    return Job(
        "evaluate",
        "cellvim.evaluate",
        lambda out: [*start, "--out", str(out / "report")],
        "report/lock",
        ("run.json",),
    )


JOBS: Mapping[str, Callable[[Path], Job]] = {
    "pretrain": pretrain_job,
    "embed": embed_job,
    "normalize": normalize_job,
    "evaluate": evaluate_job,
}
"""Stages that need no images of others, by name: from the folder that receives what they read, to the command."""


def cellvim(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cellvim", "--quiet", *arguments]


def all_files(folder: Path) -> Mapping[str, Path]:
    """Every file below a folder, by its name relative to that."""
    # Unlike rglob, walk takes no offence at folders that vanish while a command is at work.
    paths = (Path(below, name) for below, _, names in os.walk(folder) for name in names)
    return {path.relative_to(folder).as_posix(): path for path in paths}


def is_temporary(name: str) -> bool:
    """Whether a file of an output is one that is moved to its final place when it is whole."""
    return TEMPORARY_MARK in name or "tmp" in name.split("/")


def write_plate(folder: Path, name: str) -> Path:
    """Write eight fields of noise with a gradient, enough for a model to learn something from."""
    writer = PlateWriter(folder, name, CHANNELS, np.dtype(np.uint16))
    writer.begin(overwrite=True)
    fields = [FieldKey(well, site) for well in WELLS for site in (1, 2)]
    for number, key in enumerate(fields):
        generator = np.random.default_rng([*name.encode(), number])
        slope = np.linspace(200, 2000, 64) * generator.uniform(0.5, 1.5, (len(CHANNELS), 64, 1))
        writer.write_field(key, generator.poisson(slope).astype(np.uint16), token=f"{name}-{number}")
    writer.finish(fields)
    return writer.path


def write_model(folder: Path) -> Path:
    """Write an untrained encoder."""
    import torch  # takes seconds, which not every campaign has to spend

    from cellvim.model import ModelCard, save_encoder
    from cellvim.model.encoder import ChannelEncoder

    settings = ModelSettings.model_validate(MODEL)
    encoder = ChannelEncoder(settings, CHANNELS, generator=torch.Generator().manual_seed(0))
    card = ModelCard(
        model=settings, channels=CHANNELS, crop_px=CROP_PX, mask_ratio=0.75, steps=0, seed=0, is_trained=False
    )
    save_encoder(folder, encoder.state_dict(), card)
    return folder


def write_table(path: Path) -> Path:
    """Write wells of two plates: every fourth is a control, the others are five perturbations."""
    generator = np.random.default_rng(0)
    plates = [name for name in PLATES for _ in range(TABLE_WELLS)]
    wells = [f"{'ABCD'[number // 12]}{number % 12 + 1:02d}" for number in range(TABLE_WELLS)] * 2
    kinds = np.array([number // 4 % 5 + 1 if number % 4 else 0 for number in range(TABLE_WELLS)] * 2)
    centres = np.vstack([np.zeros(TABLE_FEATURES), generator.normal(0, 2, (5, TABLE_FEATURES))])
    features = (centres[kinds] + generator.normal(size=(len(kinds), TABLE_FEATURES))).astype(np.float32)
    metadata = pl.DataFrame(
        {
            "Metadata_Plate": plates,
            "Metadata_Well": wells,
            "Metadata_Perturbation": [f"drug{kind}" if kind else "DMSO" for kind in kinds],
            "Metadata_ControlType": [None if kind else "negcon" for kind in kinds],
        }
    )
    names = [f"emb_{number:04d}" for number in range(TABLE_FEATURES)]
    write_parquet(path, pl.concat([metadata, pl.DataFrame(features, schema=names)], how="horizontal"))
    return path
