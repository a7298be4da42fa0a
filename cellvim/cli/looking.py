"""Looking around: the demo, plates at a glance, and what this machine offers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cellvim import __version__
from cellvim.cli.app import app
from cellvim.cli.flags import Json, Overwrite, Plates
from cellvim.config import DemoSettings
from cellvim.errors import SomeFailedError
from cellvim.terminal import show, show_dict

INGEST_AGAIN = "ingest again: what is unfinished is resumed, what is damaged needs --overwrite"


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
    sources: Annotated[
        Path | None, typer.Option(help="Folder that was ingested: compare its files with the manifest, too.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes and metadata, read no pixels.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a plate is what was written: every file against its checksum, metadata against OME-Zarr 0.5.

    Plates of other programs have no checksums: all their chunks are read.
    """
    from cellvim.ingest.checking.plates import NOT_COMPARED, verify_plates

    verified = verify_plates(plates, sources=sources, quick=quick)
    show_dict(
        {
            name: result.as_dict() if as_json else result.lines(is_quick=quick)
            for name, result in verified.items()
        },
        as_json=as_json,
    )
    broken = [name for name, result in verified.items() if result.problems]
    if broken:
        found = f"{len(broken)} of {len(verified)} plates have problems: {', '.join(broken)}"
        problems = [problem for result in verified.values() for problem in result.problems]
        is_elsewhere = all(problem.startswith(NOT_COMPARED) for problem in problems)
        hint = "name the folder that was given to ingest" if is_elsewhere else INGEST_AGAIN
        raise SomeFailedError(found, hint=hint)


@app.command()
def info(
    plates: Plates,
    *,
    as_json: Json = False,
) -> None:
    """Show a plate at a glance: images, channels, intensities, plate map, and which wells are there."""
    from cellvim.cli.glance import show_plates
    from cellvim.ingest.checking.foreign import describe_all

    described, failed = describe_all(plates)
    if as_json:
        show_dict(_by_name(described), as_json=True)
    else:
        show_plates([facts for _, facts in described])
    if failed:
        found = f"{len(failed)} of {len(failed) + len(described)} plates cannot be shown: {failed[0].found}"
        raise SomeFailedError(found, hint=failed[0].hint)


def _by_name(described: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Several plates in one folder, which other programs write, are told apart by their names."""
    paths = [path for path, _ in described]
    return {path if paths.count(path) == 1 else f"{path}#{facts['name']}": facts for path, facts in described}


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
