"""From images to an encoder: ingest and pretrain."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from cellvim.atomic import require_writable
from cellvim.cli.app import app
from cellvim.cli.flags import Device, Json, OptionalPlates, Overwrite, PlateMap, given
from cellvim.config import (
    Backbone,
    IlluminationMethod,
    IlluminationMode,
    IngestSettings,
    Preset,
    PretrainSettings,
    SourceKind,
)
from cellvim.errors import UsageError
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
    if not dry_run and "://" not in out:
        # Before every file of the sources is looked at.
        require_writable(Path(out))
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
    plates: OptionalPlates = None,
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
    if os.environ.get("RANK", "0") == "0":
        # Only the first rank writes, and torch, loaded below, takes the time in which this should be known.
        require_writable(out)
    from cellvim.pretrain import is_first_rank
    from cellvim.pretrain import pretrain as run_pretraining

    flags = {
        "plates": plates or None, "out": out, "objective": objective, "preset": preset, "steps": steps,
        "batch_size": batch_size, "device": device, "seed": seed, "overwrite": overwrite or None,
        "model": given(backbone=backbone),
        "engine": given(accumulate=accumulate, precision=precision, workers=workers),
    }  # fmt: skip
    content = given(**flags)
    settings = PretrainSettings.from_yaml(config, **content) if config else PretrainSettings.checked(content)
    if not settings.plates:
        found = "no plates to learn from"
        raise UsageError(found, hint="name plates or folders of plates, or list them in --config")
    summary = run_pretraining(settings, config=config)
    if is_first_rank():
        show(summary, as_json=as_json)
