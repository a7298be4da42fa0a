"""Command line. Each command turns arguments into settings, calls one library function, prints one result.

Results go to stdout; log, progress and errors to stderr. Torch is imported inside commands, so `--help` is instant.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cellvim import __version__
from cellvim.config import (
    Backbone,
    DemoSettings,
    EmbedSettings,
    EvaluateSettings,
    ImportSettings,
    IngestSettings,
    Preset,
    PretrainSettings,
)
from cellvim.errors import SomeFailedError
from cellvim.terminal import run_to_exit_code, show, show_dict

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Plates = Annotated[list[Path], typer.Argument(metavar="PLATE", help="OME-Zarr plates, or folders of plates.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what other inputs or settings made.")]
Device = Annotated[
    Literal["auto", "cpu", "cuda"] | None, typer.Option(help="Where to compute.  [default: auto]")
]
PlateMap = Annotated[
    Path | None,
    typer.Option(help="CSV, TSV or Parquet that says what is in each well (JUMP, pycytominer or plain)."),
]


def main() -> None:
    run_to_exit_code(app)


@app.callback()
def describe(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every detail.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Turn microscopy plates into well profiles, and measure how good the profiles are.

    **ingest** images, **pretrain** an encoder, **embed** wells, **evaluate** the profiles. Try `cellvim demo` first.
    """
    if version:
        typer.echo(f"cellvim {__version__}")
        raise typer.Exit
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("cellvim").setLevel(level)


@app.command()
def ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE", help="Folders of images.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that receives PLATE.ome.zarr.")],
    platemap: PlateMap = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="File names with named fields, such as `{plate}/{well}_{field}_{channel}.tif`."),
    ] = None,
    plate: Annotated[str | None, typer.Option(help="Plate name, where the source has none.")] = None,
    source: Annotated[
        Literal["auto", "pattern", "imagexpress", "operetta"], typer.Option(help="Reader to use.")
    ] = "auto",
    channels: Annotated[
        str | None, typer.Option(help="Stain names: DNA,GFP in sorted order of the keys, or 1=GFP,2=DNA.")
    ] = None,
    on_missing: Annotated[
        Literal["stop", "skip-field", "fill"],
        typer.Option(help="What to do with a missing or damaged plane."),
    ] = "stop",
    z: Annotated[str, typer.Option(help="Several z planes: max, mean, or the number of one plane.")] = "max",
    timepoint: Annotated[
        int | None, typer.Option(min=0, help="Time point to keep, if there are several.")
    ] = None,
    codec: Annotated[Literal["zstd", "lz4"], typer.Option(help="Compression: smaller, or faster.")] = "zstd",
    workers: Annotated[int, typer.Option(min=1, help="Fields at a time.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and report, write nothing.")] = False,
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
            "sources": sources, "out": out, "platemap": platemap, "pattern": pattern, "plate": plate,
            "source": source, "channels": channels, "on_missing": on_missing,
            "z": int(z) if z.isdecimal() else z, "timepoint": timepoint, "codec": codec, "workers": workers,
            "dry_run": dry_run, "overwrite": overwrite,
        }
    )  # fmt: skip
    try:
        show(ingest_plates(settings), as_json=as_json)
    except FieldsFailedError as error:
        show(error.summary, as_json=as_json)
        raise


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

    Killed at any moment, the same command goes on and ends with the same bytes.

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
        "model": _given(backbone=backbone),
        "engine": _given(accumulate=accumulate, precision=precision, workers=workers),
    }  # fmt: skip
    given = _given(**flags)
    settings = PretrainSettings.from_yaml(config, **given) if config else PretrainSettings.checked(given)
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
            "layers": _split_names(layers), "tile_px": tile_px, "has_intensity": intensity,
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


@app.command()
def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for images, plates, run, table and report.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Changes the synthetic plates and the training.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make synthetic plates with known truth and run the four commands on them, offline, in about two minutes."""
    from cellvim.demo import run_demo

    show(run_demo(DemoSettings(out=out, seed=seed, overwrite=overwrite)), as_json=as_json)


@app.command()
def verify(
    plates: Plates,
    *,
    as_json: Json = False,
) -> None:
    """Compare every pixel of a plate with the checksums taken at ingest."""
    from cellvim.store import find_plates, verify_plate

    problems = {str(path): verify_plate(path) for path in find_plates(plates)}
    show_dict({name: found or ["intact"] for name, found in problems.items()}, as_json=as_json)
    broken = [name for name, found in problems.items() if found]
    if broken:
        found = f"{len(broken)} of {len(problems)} plates are damaged: {', '.join(broken)}"
        raise SomeFailedError(found, hint="delete PLATE.ome.zarr and PLATE.cellvim and ingest again")


@app.command()
def info(
    plates: Plates,
    *,
    as_json: Json = False,
) -> None:
    """Show a plate at a glance: channels, wells, fields, sizes, intensities."""
    from cellvim.store import describe_plate, find_plates

    show_dict({str(path): describe_plate(path) for path in find_plates(plates)}, as_json=as_json)


@app.command("import-checkpoint")
def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint of a published FastVim model.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that receives model.safetensors and its page.")],
    channels: Annotated[
        str | None, typer.Option(help="Stains in the order of training, such as DNA,ER,RNA,AGP,Mito.")
    ] = None,
    pool: Annotated[
        Literal["auto", "mean", "max"], typer.Option(help="How a row is pooled, if the file does not say.")
    ] = "auto",
    scan_order: Annotated[
        Literal["channel-first", "spatial-first"] | None,
        typer.Option(help="What varies fastest in the scan."),
    ] = None,
    scan_path: Annotated[
        Literal["rowwise", "colwise"] | None, typer.Option(help="What the first block pools.")
    ] = None,
    mask_ratio: Annotated[
        float | None, typer.Option(help="Share of hidden patches, for masked models.")
    ] = None,
    image_px: Annotated[
        str | None, typer.Option(help="Side of the training images, or HEIGHTxWIDTH.")
    ] = None,
    ema: Annotated[
        bool, typer.Option("--ema/--no-ema", help="Use averaged weights, if there are any.")
    ] = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn published weights that you have into a model for `embed`. Nothing in FILE is ever run.

    The licence of the weights stays the one of their authors.

    **Examples**

    `cellvim import-checkpoint fastchannelvim_small.ckpt --out fastchannelvim --channels DNA,ER,RNA,AGP,Mito`

    `cellvim import-checkpoint fastmaskvim_base.ckpt --out fastmaskvim --mask-ratio 0.75`
    """
    from cellvim.model.importing import import_checkpoint as run_import

    flags = {
        "file": file, "out": out, "channels": _split_names(channels), "pool": pool, "scan_order": scan_order,
        "scan_path": scan_path, "mask_ratio": mask_ratio, "image_px": _parse_size(image_px), "use_ema": ema,
        "overwrite": overwrite,
    }  # fmt: skip
    show(run_import(ImportSettings.checked(flags)), as_json=as_json)


@app.command()
def doctor(
    *,
    as_json: Json = False,
) -> None:
    """Show what this machine offers and what cellvim will use."""
    from cellvim.model import describe_backend
    from cellvim.provenance import package_versions

    facts = {"cellvim": __version__, "versions": package_versions(), "compute": describe_backend()}
    show_dict(facts, as_json=as_json)


def _given(**flags: Any) -> dict[str, Any]:
    """Keep what the user said; the rest is for the settings to fill."""
    return {key: value for key, value in flags.items() if value is not None}


def _split_names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def _parse_size(text: str | None) -> tuple[str, ...] | None:
    """Height and width; pydantic says whether they are numbers."""
    if text is None:
        return None
    sides = text.lower().split("x")
    return (sides[0], sides[0]) if len(sides) == 1 else tuple(sides)
