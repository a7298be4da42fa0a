"""The way back from a result to the commands that made it: reproduce."""

from pathlib import Path
from typing import Annotated

import typer

from cellvim.cli.app import app
from cellvim.cli.flags import Json
from cellvim.errors import SomeFailedError, UsageError
from cellvim.terminal import printable, show


@app.command()
def reproduce(
    result: Annotated[
        Path,
        typer.Argument(metavar="RESULT", help="A run.json, or a folder, table, plate or report with one."),
    ],
    *,
    run: Annotated[
        bool, typer.Option("--run", help="Run the commands in a new folder, and compare what comes out.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for --run; the same again resumes.")] = None,
    only_last: Annotated[
        bool, typer.Option("--only-last", help="The last command alone; what it read counts as given.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare images and pixels by size, without reading them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the commands that made RESULT, first one first, and whether their inputs are still the same.

    **Examples**

    `cellvim reproduce report/`

    `cellvim reproduce report/run.json --run --out again`
    """
    from cellvim.reproduce import PlanSummary, RunSummary, make_plan, run_plan

    if run and out is None:
        found = "--run needs a new folder to write to"
        raise UsageError(found, hint="pass --out DIR")
    if out is not None and not run:
        found = "--out is the folder of --run, and without that nothing is written"
        raise UsageError(found, hint="pass --run, too, or leave --out away")
    plan = make_plan(result, quick=quick, only_last=only_last)
    if out is None:
        show(PlanSummary(plan), as_json=as_json)
        return
    for line in str(PlanSummary(plan)).split("\n"):
        typer.echo(printable(line), err=True)
    summary = RunSummary(out, run_plan(plan, out, tell=lambda line: typer.echo(printable(line), err=True)))
    show(summary, as_json=as_json)
    if not summary.is_same:
        different = sum(not outcome.is_same for outcome in summary.outcomes)
        found = f"{different} of {len(summary.outcomes)} steps did not give the recorded bytes"
        raise SomeFailedError(found, hint=f"what they gave is in {out}; versions that differ are named above")
