"""The command `cellvim` itself: what it is for, and how loud it is."""

import logging
import sys
from typing import Annotated

import typer

from cellvim import __version__

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


def _version(wanted: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if wanted:
        typer.echo(f"cellvim {__version__}")
        raise typer.Exit


@app.callback()
def describe(
    *,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every detail.")] = False,
    version: Annotated[  # noqa: ARG001 - answered by its callback, before a command is asked for
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Turn microscopy plates into well profiles, and measure how good the profiles are.

    **ingest** images, **pretrain** an encoder, **embed** wells, **evaluate** the profiles. Try `cellvim demo` first.
    """
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for name in ("cellvim", "cellvim_kernels"):
        logging.getLogger(name).setLevel(level)
