"""Looking around: the demo, plates at a glance, and what this machine offers."""

from pathlib import Path
from typing import Annotated

import typer

from cellvim import __version__
from cellvim.cli.app import app
from cellvim.cli.flags import Json, Overwrite, Plates
from cellvim.config import DemoSettings
from cellvim.errors import SomeFailedError
from cellvim.terminal import show, show_dict


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
