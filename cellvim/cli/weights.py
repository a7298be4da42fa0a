"""Weights that come from elsewhere."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cellvim.cli.app import app
from cellvim.cli.flags import Json, Overwrite, split_names
from cellvim.config import ImportSettings
from cellvim.terminal import show


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
        "file": file, "out": out, "channels": split_names(channels), "pool": pool, "scan_order": scan_order,
        "scan_path": scan_path, "mask_ratio": mask_ratio, "image_px": _parse_size(image_px), "use_ema": ema,
        "overwrite": overwrite,
    }  # fmt: skip
    show(run_import(ImportSettings.checked(flags)), as_json=as_json)


def _parse_size(text: str | None) -> tuple[str, ...] | None:
    """Height and width; pydantic says whether they are numbers."""
    if text is None:
        return None
    sides = text.lower().split("x")
    return (sides[0], sides[0]) if len(sides) == 1 else tuple(sides)
