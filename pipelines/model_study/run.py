"""One training of the model study: pretrain, embed, measure, and write down what was found."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.atomic import read_json, write_json, write_parquet
from cellvim.config import EmbedSettings, PretrainSettings, merge
from cellvim.embed import embed_plates
from cellvim.model import load_encoder, save_encoder
from cellvim.pretrain import load_autoencoder, pretrain
from cellvim.store import PlateReader
from pipelines.baselines import intensity_statistics, write_baseline_table
from pipelines.bbbc013 import ingest_plate
from pipelines.model_study.measures import Measures, bbbc013_measures, synthetic_measures
from pipelines.model_study.plates import (
    StudyPlates,
    SyntheticSize,
    bbbc013_plates,
    make_synthetic_plates,
    synthetic_plates,
)
from pipelines.model_study.reconstruction import (
    hidden_stain_errors,
    linear_errors,
    read_crops,
    share_by_stain,
    share_explained,
)
from pipelines.model_study.variants import BLOCKS, INTENSITY, UNTRAINED, DataName, Reading, Variant

LONGER = 2
"""How many times as many steps the second stage trains for."""
CONFIG = Path(__file__).parents[2] / "configs" / "model_study.yaml"


@dataclass(frozen=True)
class Study:
    """Where everything lies, and how much of it there is.

    Args:
        out: Folder of plates, runs, tables and results.
        source: Folder of BBBC013; without it the study is of synthetic plates only.
        seeds: Each decides synthetic plates, initial weights and draws.
        size: Synthetic plates.
        recipe: Settings that replace those of `configs/model_study.yaml` in every run.
    """

    out: Path
    source: Path | None
    seeds: tuple[int, ...] = (0, 1, 2)
    size: SyntheticSize = field(default_factory=SyntheticSize)
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def confirmation(self) -> "Study":
        """The second stage: more steps, on synthetic plates of seeds that nothing was chosen by."""
        fresh = tuple(max(self.seeds) + 1 + number for number in range(len(self.seeds)))
        steps = LONGER * PretrainSettings.from_yaml(CONFIG, **self.recipe).steps
        return replace(
            self,
            out=self.out / "confirmation",
            source=None,
            seeds=fresh,
            recipe={**self.recipe, "steps": steps},
        )

    @property
    def data(self) -> tuple[DataName, ...]:
        return ("synthetic",) if self.source is None else ("synthetic", "bbbc013")

    def folder(self, data: DataName, seed: int) -> Path:
        return self.out / (f"synthetic-{seed}" if data == "synthetic" else data)

    def plates(self, data: DataName, seed: int) -> StudyPlates:
        folder = self.folder(data, seed)
        return synthetic_plates(folder, self.size) if data == "synthetic" else bbbc013_plates(folder)

    def result(self, data: DataName, variant: Variant, seed: int) -> Path:
        return self.out / "results" / f"{data}-{variant.folder}-{seed}.json"

    def baseline(self, data: DataName, seed: int) -> Path:
        return self.out / "results" / f"{data}-baseline-{seed}.json"

    def settings(self, variant: Variant, plates: StudyPlates, out: Path, *, seed: int) -> PretrainSettings:
        changes = merge(self.recipe, variant.changes)
        paths = {"plates": list(plates.learned), "out": out, "seed": seed}
        return PretrainSettings.from_yaml(CONFIG, **merge(changes, paths))


def make_plates(study: Study, data: DataName, seed: int) -> None:
    """Make the plates of a data set; what is there already is kept. BBBC013 is the same for every seed."""
    if data == "synthetic":
        make_synthetic_plates(study.folder(data, seed), study.size, seed=seed)
    elif study.source is not None:
        ingest_plate(study.source, study.folder(data, seed) / "plates")


def finish_variant(study: Study, data: DataName, variant: Variant, seed: int) -> Path:
    """Train, embed and measure one variant; steps that are done already are kept.

    Returns:
        JSON of `parameters`, `milliseconds_per_step`, `weights_sha256`, `readings` (name to measures) and
        `stains` (how much of each hidden stain is predicted).
    """
    plates = study.plates(data, seed)
    folder = study.out / "runs" / f"{data}-{variant.folder}-{seed}"
    settings = study.settings(variant, plates, folder / "run", seed=seed)
    trained = pretrain(settings)
    result = study.result(data, variant, seed)
    if result.is_file() and read_json(result)["weights_sha256"] == trained.weights_sha256:
        return result
    readings = {
        reading.name: measure_table(data, table)
        for reading, table in _tables(variant.readings, settings.out, plates, folder / "tables").items()
    }
    stains: dict[str, float] = {}
    if variant.name != UNTRAINED:
        crops = read_crops(plates.judged, crop_px=settings.crops.crop_px)
        errors = hidden_stain_errors(load_autoencoder(settings.out), crops)
        readings[variant.name]["reconstruction"] = share_explained(errors)
        stains = share_by_stain(errors)
    speed = trained.crops_per_second
    content = {
        "parameters": trained.parameters,
        "milliseconds_per_step": None if speed is None else 1000 * settings.batch_size / speed,
        "weights_sha256": trained.weights_sha256,
        "readings": readings,
        "stains": stains,
    }
    write_json(result, content)
    return result


def finish_baseline(study: Study, data: DataName, seed: int) -> Path:
    """Measure what needs no encoder: intensity statistics, and linear regression of a stain on the others."""
    result = study.baseline(data, seed)
    if result.is_file():
        return result
    plates = study.plates(data, seed)
    folder = study.out / "runs" / f"{data}-baseline-{seed}" / "tables"
    parts = [
        write_baseline_table(plate, intensity_statistics, folder / f"{plate.name}.parquet")
        for plate in map(PlateReader, plates.judged)
    ]
    table = folder / "intensity.parquet"
    write_parquet(table, pl.concat(parts))
    crop_px = PretrainSettings.from_yaml(CONFIG, **study.recipe).crops.crop_px
    learned, judged = (read_crops(part, crop_px=crop_px) for part in (plates.learned, plates.judged))
    errors = linear_errors(learned, judged)
    measures = measure_table(data, table) | {"reconstruction": share_explained(errors)}
    write_json(result, {"readings": {INTENSITY: measures}, "stains": share_by_stain(errors)})
    return result


def measure_table(data: DataName, table: Path) -> Measures:
    return synthetic_measures(table) if data == "synthetic" else bbbc013_measures(table)


def _tables(
    readings: tuple[Reading, ...], run: Path, plates: StudyPlates, folder: Path
) -> dict[Reading, Path]:
    """Embed the judged plates once for the final norm and once for all blocks; the rest is cut out of that."""
    final = folder / "final.parquet"
    embed_plates(EmbedSettings(plates=plates.judged, model=run, out=final))
    found = {}
    for number, reading in enumerate(readings):
        path = folder / f"reading-{number}.parquet"
        if reading.dense_pool_scale is not None:
            scaled = _with_dense_scale(run, folder / "scaled", reading.dense_pool_scale)
            embed_plates(EmbedSettings(plates=plates.judged, model=scaled, out=path))
        elif reading.block is not None:
            blocks = folder / "blocks.parquet"
            layers = tuple(range(BLOCKS))
            embed_plates(EmbedSettings(plates=plates.judged, model=run, out=blocks, layers=layers))
            write_parquet(path, cut_block(pl.read_parquet(blocks), reading.block, stains=_stains(plates)))
        elif reading.pool == "all":
            write_parquet(path, average_stains(pl.read_parquet(final), stains=_stains(plates)))
        else:
            path = final
        found[reading] = path
    return found


def cut_block(table: pl.DataFrame, block: int, *, stains: int) -> pl.DataFrame:
    """Take the features of one block out of a table of all blocks, which holds them stain by stain."""
    names = _features(table)
    width = len(names) // (stains * BLOCKS)
    kept = [
        names[(stain * BLOCKS + block) * width + place] for stain in range(stains) for place in range(width)
    ]
    return table.select(pl.col("^Metadata_.*$"), *kept)


def average_stains(table: pl.DataFrame, *, stains: int) -> pl.DataFrame:
    """Average features over stains: what `embed --pool all` gives, as every stain has the same number of tokens."""
    names = _features(table)
    width = len(names) // stains
    means = [pl.mean_horizontal(names[place::width]).alias(names[place]) for place in range(width)]
    return table.select(pl.col("^Metadata_.*$"), *means)


def _features(table: pl.DataFrame) -> list[str]:
    return [name for name in table.columns if not name.startswith("Metadata_")]


def _stains(plates: StudyPlates) -> int:
    return len(PlateReader(plates.judged[0]).channels)


def _with_dense_scale(run: Path, folder: Path, scale: float) -> Path:
    """Write the same weights with another scale of the pooled means of whole images."""
    encoder, card = load_encoder(run)
    model = card.model.model_copy(update={"dense_pool_scale": scale})
    save_encoder(folder, encoder.state_dict(), card.model_copy(update={"model": model}))
    return folder
