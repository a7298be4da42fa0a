"""The command `cellvim` itself: what it is for, and how loud it is."""

import logging
import sys
from typing import Annotated

import typer

from cellvim import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


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
    for name in ("cellvim", "cellvim_kernels"):
        logging.getLogger(name).setLevel(level)
