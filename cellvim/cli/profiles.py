"""From an encoder to answers: embed and evaluate."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cellvim.atomic import require_writable
from cellvim.cli.app import app
from cellvim.cli.flags import Device, Json, Overwrite, PlateMap, Plates, given, split_names
from cellvim.config import TASK_NAMES, Average, EmbedSettings, EvaluateSettings, Normalization
from cellvim.terminal import show


@app.command()
def embed(
    plates: Plates,
    *,
    model: Annotated[Path, typer.Option(help="Run folder of pretrain, or a model.safetensors file.")],
    out: Annotated[Path, typer.Option(help="Parquet table to write.")],
    level: Annotated[
        Literal["well", "field", "crop", "object"], typer.Option(help="What a row stands for.")
    ] = "well",
    pool: Annotated[
        Literal["channel", "all"], typer.Option(help="Average tokens per channel, or over everything.")
    ] = "channel",
    layers: Annotated[
        str | None, typer.Option(help="Blocks to use, such as 3,5; the last if absent.")
    ] = None,
    each_layer: Annotated[
        bool,
        typer.Option(
            "--each-layer", help="One table per block, NAME.block02.parquet; of all if none is named."
        ),
    ] = False,
    tile_px: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile; the training crop if absent.")
    ] = None,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a tile by which neighbours overlap at least.")
    ] = 0.0,
    min_content: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Leave out tiles of which less than this share is brighter than the plate's background, such as 0.02.",
        ),
    ] = 0.0,
    masks: Annotated[
        Path | None,
        typer.Option(help="Label images, PLATE/WELL_SITE.tif: crops around their objects replace the tiles."),
    ] = None,
    object_background: Annotated[
        Literal["keep", "zero"], typer.Option(help="Show what lies around an object, or not.")
    ] = "keep",
    intensity: Annotated[
        bool, typer.Option("--intensity", help="Append each channel's mean and deviation.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Tiles per forward pass.")] = 16,
    device: Device = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes, each with plates of its own.  [default: one per GPU, else one]"),
    ] = None,
    readers: Annotated[
        int | None, typer.Option(min=1, help="Fields each process reads ahead.  [default: cores, 2 to 8]")
    ] = None,
    anndata: Annotated[
        bool, typer.Option("--anndata", help="Also write NAME.h5ad beside the table.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write one row of features per well.

    **Examples**

    `cellvim embed plates/ --model run --out embeddings.parquet`

    `cellvim embed plates/BR00116991.ome.zarr --model run --out fields.parquet --level field`

    `cellvim embed plates/ --model run --out cells.parquet --level object --masks nuclei/`
    """
    if overwrite or not (each_layer or out.exists()):
        # Torch, loaded below, takes the time in which this should be known. What is finished may lie in an archive.
        require_writable(out)
    from cellvim.embed import embed_plates, require_complete

    settings = EmbedSettings.checked(
        {
            "plates": plates, "model": model, "out": out, "level": level, "pool": pool,
            "layers": split_names(layers), "each_layer": each_layer, "tile_px": tile_px, "overlap": overlap,
            "min_content": min_content, "masks": masks, "object_background": object_background,
            "has_intensity": intensity,
            "batch_size": batch_size, "device": device or "auto", "overwrite": overwrite,
            "anndata": anndata, **given(workers=workers, readers=readers),
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
        str | None,
        typer.Option(
            help="Column of targets or mechanisms, found by its usual names; probes predict the perturbation if absent."
        ),
    ] = None,
    label_separator: Annotated[
        str, typer.Option(help="What stands between the labels of a well that has several.")
    ] = "|",
    relations: Annotated[
        Path | None,
        typer.Option(help="Known relationships for `recall`: a table whose first two columns name a pair."),
    ] = None,
    dose: Annotated[
        str | None, typer.Option(help="Column of doses; found by its usual names if absent.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Column of batches; found by its usual names, else the plate.")
    ] = None,
    normalize: Annotated[Normalization, typer.Option(help="Fitted on controls only.")] = "sphere",
    average: Annotated[Average, typer.Option(help="From fields, crops or cells to wells.")] = "mean",
    consensus: Annotated[Average, typer.Option(help="From wells to one profile per perturbation.")] = "mean",
    tasks: Annotated[
        str | None, typer.Option(help=f"Some of `{','.join(TASK_NAMES)}`.  [default: all]")
    ] = None,
    different_position: Annotated[
        bool,
        typer.Option(
            "--different-position", help="Replicates must lie at another well position, too, to be found."
        ),
    ] = False,
    null_size: Annotated[
        int, typer.Option(min=1, help="Random rank lists behind each p-value; more reach smaller p.")
    ] = 10000,
    bootstraps: Annotated[int, typer.Option(min=1, help="Resamples behind each interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of null distributions and resampling.")] = 0,
    title: Annotated[str | None, typer.Option(help="Heading of the report.")] = None,
    left_out: Annotated[
        Path | None,
        typer.Option(
            help="CSV of plates that failed and are not in the tables, to be named: plate, step, error."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Say how good the profiles of tables are: what is active, distinct and found again, by dose, by mechanism, across batches.

    **Examples**

    `cellvim evaluate embeddings.parquet --out report`

    `cellvim evaluate ours.parquet cellprofiler.csv.gz --control Metadata_broad_sample=DMSO --normalize none --out report`
    """
    require_writable(out)
    from cellvim.evaluate import evaluate_tables

    content: dict[str, Any] = {
        "tables": tables, "out": out, "platemap": platemap, "perturbation": perturbation, "control": control,
        "label": label, "label_separator": label_separator, "relations": relations, "dose": dose, "batch": batch,
        "average": average, "consensus": consensus, "different_position": different_position, "normalize": normalize, "seed": seed, "title": title, "overwrite": overwrite,
        "null_size": null_size, "bootstraps": bootstraps, "left_out": left_out,
    }  # fmt: skip
    if tasks is not None:
        content["tasks"] = [task.strip() for task in tasks.replace(",", " ").split()]
    show(evaluate_tables(EvaluateSettings.checked(content)), as_json=as_json)
