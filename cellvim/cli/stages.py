"""The four stages: ingest, pretrain, embed, evaluate."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cellvim.cli.app import app
from cellvim.cli.flags import Device, Json, Overwrite, PlateMap, Plates, given, split_names
from cellvim.config import (
    Backbone,
    EmbedSettings,
    EvaluateSettings,
    IlluminationMethod,
    IlluminationMode,
    IngestSettings,
    Preset,
    PretrainSettings,
    SourceKind,
)
from cellvim.terminal import show


@app.command()
def ingest(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Folders of images, load_data.csv files, OME-Zarr plates."),
    ],
    *,
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder that receives PLATE.ome.zarr: a path, or s3://, gs://.")
    ],
    platemap: PlateMap = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="File names with named fields, such as `{plate}/{well}_{field}_{channel}.tif`."),
    ] = None,
    plate: Annotated[str | None, typer.Option(help="Plate name, where the source has none.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images that a load_data.csv names, if not beside it.")
    ] = None,
    source: Annotated[SourceKind, typer.Option(help="Reader to use.")] = "auto",
    channels: Annotated[
        str | None, typer.Option(help="Stain names: DNA,GFP in sorted order of the keys, or 1=GFP,2=DNA.")
    ] = None,
    drop_channels: Annotated[
        str | None, typer.Option(help="Channels to leave out, by keys or stains of the source: 4 or 4,Cy5.")
    ] = None,
    on_missing: Annotated[
        Literal["stop", "skip-field", "fill"],
        typer.Option(help="What to do with a missing or damaged plane."),
    ] = "stop",
    z: Annotated[
        str,
        typer.Option(help="Several z planes: max, mean, focus (the sharpest), or the number of one plane."),
    ] = "max",
    timepoint: Annotated[
        int | None, typer.Option(min=0, help="Time point to keep, if there are several.")
    ] = None,
    codec: Annotated[Literal["zstd", "lz4"], typer.Option(help="Compression: smaller, or faster.")] = "zstd",
    illumination: Annotated[
        IlluminationMode,
        typer.Option(help="Correct uneven illumination: on reading, or in the stored pixels."),
    ] = "none",
    illumination_method: Annotated[
        IlluminationMethod,
        typer.Option(help="Learn it from the smoothed mean image, or by BaSiC (needs basicpy)."),
    ] = "mean",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Fields at a time.  [default: one per core, at most 8]")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check and report, write nothing; ends with exit code 3 where ingest would stop.",
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn plate images into OME-Zarr, one DIR/PLATE.ome.zarr per plate.

    Every file is checked before anything is written. Run the same command again to resume.

    **Examples**

    `cellvim ingest MetaXpress_export/ --out plates/ --platemap platemap.csv`

    `cellvim ingest images/ --pattern 'Channel{channel}-{}-{row}-{column}.tif' --channels 1=GFP,2=DNA --plate 1049 --out plates/`
    """
    from cellvim.ingest import FieldsFailedError, ingest_plates

    settings = IngestSettings.checked(
        {
            "sources": sources, "out": out, "platemap": platemap, "pattern": pattern, "plate": plate, "images": images,
            "source": source, "channels": channels, "drop_channels": drop_channels, "on_missing": on_missing,
            "z": int(z) if z.isdecimal() else z, "timepoint": timepoint, "codec": codec, "illumination": illumination,
            "illumination_method": illumination_method, **given(workers=workers),
            "dry_run": dry_run, "overwrite": overwrite,
        }
    )  # fmt: skip
    try:
        summary = ingest_plates(settings)
    except FieldsFailedError as error:
        show(error.summary, as_json=as_json)
        raise
    show(summary, as_json=as_json)
    summary.refuse_foreseen()


@app.command()
def pretrain(
    plates: Plates,
    *,
    out: Annotated[
        Path, typer.Option(help="Run folder: model.safetensors, metrics.jsonl, pictures, report.html.")
    ],
    objective: Annotated[
        Literal["mae", "supervised", "align"] | None,
        typer.Option(help="Hidden pixels, a label, or pixels and replicates.  [default: mae]"),
    ] = None,
    preset: Annotated[Preset | None, typer.Option(help="Size of the model.  [default: nano]")] = None,
    backbone: Annotated[
        Backbone | None, typer.Option(help="What mixes the tokens.  [default: fast_channel_vim]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML of settings; see configs/. Flags win over it.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Optimiser steps; 0 for an untrained encoder.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Crops per step, over all ranks.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Parts that a step is computed in, to save memory.")
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option(help="Of the large products; auto is bf16 on a GPU.  [default: auto]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads that read crops ahead.  [default: 2]")
    ] = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Changes every random draw.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Train a channel-aware FastVim on plates, without labels unless the objective asks for them.

    Killed at any moment, the same command goes on; on a CPU it ends with the same bytes.

    **Examples**

    `cellvim pretrain plates/ --out run --preset nano --steps 1000`

    `cellvim pretrain plates/ --out run --config configs/bbbc013.yaml --seed 1`

    `torchrun --nproc-per-node 4 -m cellvim pretrain plates/ --out run --preset small --batch-size 256`
    """
    from cellvim.pretrain import is_first_rank
    from cellvim.pretrain import pretrain as run_pretraining

    flags = {
        "plates": plates, "out": out, "objective": objective, "preset": preset, "steps": steps,
        "batch_size": batch_size, "device": device, "seed": seed, "overwrite": overwrite or None,
        "model": given(backbone=backbone),
        "engine": given(accumulate=accumulate, precision=precision, workers=workers),
    }  # fmt: skip
    content = given(**flags)
    settings = PretrainSettings.from_yaml(config, **content) if config else PretrainSettings.checked(content)
    summary = run_pretraining(settings)
    if is_first_rank():
        show(summary, as_json=as_json)


@app.command()
def embed(
    plates: Plates,
    *,
    model: Annotated[Path, typer.Option(help="Run folder of pretrain, or a model.safetensors file.")],
    out: Annotated[Path, typer.Option(help="Parquet table to write.")],
    level: Annotated[Literal["well", "field", "crop"], typer.Option(help="What a row stands for.")] = "well",
    pool: Annotated[
        Literal["channel", "all"], typer.Option(help="Average tokens per channel, or over everything.")
    ] = "channel",
    layers: Annotated[
        str | None, typer.Option(help="Blocks to use, such as 3,5; the last if absent.")
    ] = None,
    tile_px: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile; the training crop if absent.")
    ] = None,
    intensity: Annotated[
        bool, typer.Option("--intensity", help="Append each channel's mean and deviation.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per forward pass.")] = 16,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one row of features per well.

    **Examples**

    `cellvim embed plates/ --model run --out embeddings.parquet`

    `cellvim embed plates/BR00116991.ome.zarr --model run --out fields.parquet --level field`
    """
    from cellvim.embed import embed_plates, require_complete

    settings = EmbedSettings.checked(
        {
            "plates": plates, "model": model, "out": out, "level": level, "pool": pool,
            "layers": split_names(layers), "tile_px": tile_px, "has_intensity": intensity,
            "batch_size": batch_size, "device": device or "auto", "overwrite": overwrite,
        }
    )  # fmt: skip
    summary = embed_plates(settings)
    show(summary, as_json=as_json)
    require_complete(summary)


@app.command()
def evaluate(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLE", help="Profile tables, ours or a peer's.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that receives report.html and metrics.json.")],
    platemap: PlateMap = None,
    perturbation: Annotated[
        str | None, typer.Option(help="Column that says what was done to a well.")
    ] = None,
    control: Annotated[str | None, typer.Option(help="Negative controls, as COLUMN=VALUE.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Column that probes predict; the perturbation if absent.")
    ] = None,
    normalize: Annotated[
        Literal["sphere", "mad", "standardize", "none"],
        typer.Option(help="Normalisation, fitted on controls only."),
    ] = "sphere",
    tasks: Annotated[
        str | None,
        typer.Option(help="Some of `activity,distinctiveness,replicate_retrieval,probe`.  [default: all]"),
    ] = None,
    null_size: Annotated[
        int, typer.Option(min=1, help="Random rank lists behind each p-value; more reach smaller p.")
    ] = 10000,
    bootstraps: Annotated[int, typer.Option(min=1, help="Resamples behind each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of null distributions and resampling.")] = 0,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure perturbation retrieval and linear probes, and write a report.

    **Examples**

    `cellvim evaluate embeddings.parquet --out report`

    `cellvim evaluate ours.parquet cellprofiler.csv.gz --control Metadata_broad_sample=DMSO --normalize none --out report`
    """
    from cellvim.evaluate import evaluate_tables

    content: dict[str, Any] = {
        "tables": tables, "out": out, "platemap": platemap, "perturbation": perturbation, "control": control,
        "label": label, "normalize": normalize, "seed": seed, "title": title, "overwrite": overwrite,
        "null_size": null_size, "bootstraps": bootstraps,
    }  # fmt: skip
    if tasks is not None:
        content["tasks"] = [task.strip() for task in tasks.replace(",", " ").split()]
    show(evaluate_tables(EvaluateSettings.checked(content)), as_json=as_json)
