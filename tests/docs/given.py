"""What may lie in a page's folder before its first block: small synthetic things of every kind that pages need.

A page names them, `<!-- given: images, platemap -->`. To add one, write a function of (Toys, folder) and list it in
`GIVEN`. Whatever needs a command of cellvim is made once for all pages, in `Toys`, and copied.
"""

import gzip
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
import torch

from cellvim.demo.layout import PlateLayout
from cellvim.demo.phenotype import catalogue
from cellvim.demo.synthetic import Acquisition, write_layouts
from tests.docs.shell import Shell
from tests.model.published_states import CHANNEL, random_state

SIDE_PX = 112
WELLS = tuple(f"{row}{column:02d}" for row in "BCD" for column in range(2, 8))
RECIPE = """\
preset: nano
batch_size: 4
model: {position_grid: 7}
crops: {crop_px: 112}
optimizer: {base_learning_rate: 0.06}
"""


class Toys:
    """Made once, on demand, and copied into the folders of pages: two plates, a model, a table."""

    def __init__(self, folder: Path, commands: Path) -> None:
        self.folder = folder
        self._shell = Shell(folder, commands)

    @cached_property
    def images(self) -> Path:
        """Two MetaXpress plates, PLATE1 and PLATE2, of 18 wells with a field of five stains; platemap.csv beside."""
        control, *drugs = catalogue()
        contents = [drug for drug in drugs if drug.name in {"nuc-1", "mito-1", "mito-2", "er-1", "inert"}] * 2
        contents += [control] * (len(WELLS) - len(contents))
        layouts = tuple(
            PlateLayout(name, dict(zip(WELLS, contents[turn:] + contents[:turn], strict=True)), None)
            for name, turn in (("PLATE1", 0), ("PLATE2", 7))
        )
        written = write_layouts(self.folder, layouts, catalogue(), Acquisition(SIDE_PX, 1), seed=0)
        return written.images

    @cached_property
    def platemap(self) -> Path:
        return self.images.parent / "platemap.csv"

    @cached_property
    def plates(self) -> Path:
        return self._made("plates", f"cellvim ingest {self.images} --out plates --platemap {self.platemap}")

    @cached_property
    def model(self) -> Path:
        (self.folder / "recipe.yaml").write_text(RECIPE)
        return self._made("run", f"cellvim pretrain {self.plates} --out run --config recipe.yaml --steps 1")

    @cached_property
    def table(self) -> Path:
        return self._made(
            "embeddings.parquet",
            f"cellvim embed {self.plates} --model {self.model} --out embeddings.parquet",
        )

    def _made(self, name: str, command: str) -> Path:
        result = self._shell.run(command)
        assert result.returncode == 0, result.stderr
        return self.folder / name


def lay_out(names: tuple[str, ...], toys: Toys, folder: Path) -> None:
    """Put what a page names into its folder.

    Raises:
        KeyError: No toy has this name.
    """
    for name in names:
        GIVEN[name](toys, folder)


def images(toys: Toys, folder: Path) -> None:
    """images/PLATE1 and images/PLATE2 as MetaXpress exports them."""
    shutil.copytree(toys.images, folder / "images")


def scans(toys: Toys, folder: Path) -> None:
    """scans/, six wells of PLATE1 in three stains as a microscope of one's own may name them: B02-field1-DNA.tif."""
    (folder / "scans").mkdir()
    for path in sorted(toys.images.glob("PLATE1/TimePoint_1/PLATE1_B*_w[125].TIF")):
        _, well, _, wavelength = path.stem.split("_")
        stain = {"w1": "DNA", "w2": "ER", "w5": "Mito"}[wavelength]
        shutil.copy(path, folder / f"scans/{well}-field1-{stain}.tif")


def platemap(toys: Toys, folder: Path) -> None:
    """platemap.csv of both plates, by Metadata_Plate and Metadata_Well."""
    shutil.copy(toys.platemap, folder)


def plates(toys: Toys, folder: Path) -> None:
    """plates/PLATE1.ome.zarr and plates/PLATE2.ome.zarr, with their plate map."""
    shutil.copytree(toys.plates, folder / "plates")


def model(toys: Toys, folder: Path) -> None:
    """run/, a nano model that learned one step; its crops are 112 px."""
    shutil.copytree(toys.model, folder / "run")


def embeddings(toys: Toys, folder: Path) -> None:
    """embeddings.parquet, the wells of both plates, and its run.json."""
    for path in toys.table.parent.glob("embeddings.*"):
        shutil.copy(path, folder)


def profiles(toys: Toys, folder: Path) -> None:
    """cellprofiler.csv.gz as pycytominer writes it; features.npy and wells.csv of the same wells, from elsewhere."""
    table = pl.read_parquet(toys.table)
    values = table.select(cs.starts_with("emb_")).to_numpy().astype("float64")
    names = {"Perturbation": "pert_iname", "Mechanism": "moa"}
    is_control = pl.col("Metadata_ControlType").eq_missing("negcon")
    wells = table.select(
        "Metadata_Plate",
        "Metadata_Well",
        *(pl.col(f"Metadata_{ours}").alias(f"Metadata_{theirs}") for ours, theirs in names.items()),
        pl.when(is_control).then(pl.lit("negcon")).otherwise(pl.lit("trt")).alias("Metadata_control_type"),
    )
    cells = pl.DataFrame({f"Cells_Texture_{number}": values[:, number] for number in range(24)})
    content = pl.concat([wells, cells], how="horizontal").write_csv()
    (folder / "cellprofiler.csv.gz").write_bytes(gzip.compress(content.encode(), mtime=0))
    np.save(folder / "features.npy", values[:, ::5].astype("float32"))
    plain = wells.rename(
        {"Metadata_Plate": "plate", "Metadata_Well": "well", "Metadata_pert_iname": "treatment"}
    )
    plain.select("plate", "well", "treatment").write_csv(folder / "wells.csv")


class Shouting:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch shouted",)


def published(toys: Toys, folder: Path) -> None:  # noqa: ARG001 - as all of them
    """fastchannelvim.ckpt, random weights in the form of published ones; strange.ckpt, a pickle with a command."""
    config = {**CHANNEL, "channels": 5, "img_size": [SIDE_PX, SIDE_PX], "patch_size": 16, "stride": 16}
    state = {f"backbone.{name}": tensor.float() for name, tensor in random_state(config).items()}
    content = {"state_dict": state, "global_step": 1200, "hyper_parameters": {"collapse_method": "mean"}}
    torch.save(content, folder / "fastchannelvim.ckpt")
    torch.save({"state_dict": state, "callbacks": Shouting()}, folder / "strange.ckpt")


def new_plate(toys: Toys, folder: Path) -> None:
    """new_plate.parquet, the wells of PLATE2 alone, by the same model."""
    table = pl.read_parquet(toys.table)
    kept = table.filter(pl.col("Metadata_Plate") == "PLATE2")
    kept.write_parquet(folder / "new_plate.parquet", metadata=pl.read_parquet_metadata(toys.table))


GIVEN: dict[str, Callable[[Toys, Path], None]] = {
    "images": images,
    "scans": scans,
    "platemap": platemap,
    "plates": plates,
    "model": model,
    "embeddings": embeddings,
    "new-plate": new_plate,
    "profiles": profiles,
    "published": published,
}
