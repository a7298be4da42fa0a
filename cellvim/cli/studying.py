"""Whole studies: write a study file, see what it means, run it, see how far it is."""

from collections.abc import Sequence
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellvim.cli.app import app
from cellvim.cli.flags import Json
from cellvim.errors import CellvimError, InputError, SomeFailedError
from cellvim.terminal import show, show_dict

if TYPE_CHECKING:
    from cellvim.study import StudyPlan

# What the parser of a command raises: click's, or that of the copy of click that newer versions of typer carry.
_ParserError: type[Exception] = typer.BadParameter.__bases__[0]

study_app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(study_app, name="study")
Study = Annotated[Path, typer.Argument(metavar="STUDY", help="Study file.")]


@study_app.callback()
def describe_studies() -> None:
    """Many plates to one report: on this machine or on a cluster, through anything.

    **Examples**

    `cellvim study init study.yaml` writes it: edit it, then `cellvim study run study.yaml`
    """


@study_app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="STUDY", help="File to write.")] = Path("study.yaml"),
    *,
    plates: Annotated[
        str, typer.Option(help="Pattern of the folders of images, or a CSV of plates.")
    ] = "images/*",
    platemap: Annotated[str | None, typer.Option(help="Plate map of all plates.")] = None,
) -> None:
    """Write a commented study file."""
    from cellvim.study import write_study_file

    write_study_file(file, plates=plates, platemap=platemap)
    typer.echo(f"{file}  edit it, then: cellvim study plan {file}")


@study_app.command()
def plan(
    file: Study,
    *,
    write: Annotated[
        bool,
        typer.Option(
            "--write", help="Write what the commands read, OUT/pretrain.yaml, for those who run them by hand."
        ),
    ] = False,
    look: Annotated[
        bool,
        typer.Option(
            "--look",
            help="Look into every plate, too, as `cellvim ingest --dry-run` does: its files, its wells in the plate map.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the plates of a study and the commands that will be run, and check them. Runs nothing."""
    planned = _planned(file)
    if look:
        _look_into_plates(planned)
    if write:
        planned.write_pretrain_file()
    if as_json:
        show_dict(planned.as_dict(), as_json=True)
        return
    show(planned, as_json=False)


@study_app.command()
def run(
    file: Study,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGUMENTS]", help="For Snakemake, as it spells them.")
    ] = None,
    *,
    profile: Annotated[
        str, typer.Option(help="local, slurm, or a folder with a Snakemake profile.")
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Cores on this machine, or jobs at a time on a cluster.  [default: all, or the profile's]",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be run.")] = False,
    stop_on_failure: Annotated[
        bool, typer.Option("--stop-on-failure", help="Make no report while a plate is missing.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results that other settings made.")
    ] = False,
    again: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLATE", help="Make this plate again, its images were mended. Several times for several."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run what is missing of a study; the same command resumes.

    A plate that fails is tried again with more memory, then left out of the report and named; the command then ends
    with 1.

    **Examples**

    `cellvim study run study.yaml`

    `cellvim study run study.yaml --profile slurm --jobs 100`
    """
    from cellvim.study.run import RunOptions, StudyFailedError, run_study

    options = RunOptions(
        profile=profile,
        jobs=jobs,
        overwrite=overwrite,
        again=tuple(again or ()),
        dry_run=dry_run,
        stop_on_failure=stop_on_failure,
        arguments=tuple(arguments or ()),
    )
    try:
        state = run_study(_planned(file), options)
    except StudyFailedError as error:
        show(error.state, as_json=as_json)
        raise
    show(state, as_json=as_json)


@study_app.command()
def status(file: Study, *, as_json: Json = False) -> None:
    """Say which plates are done, and which failed and why. Ends with 1 if any failed."""
    from cellvim.study.status import look_at_study

    state = look_at_study(_planned(file))
    show(state, as_json=as_json)
    failed = len(state.failed) + len(state.failures) + len(state.plates_lost)
    if failed:
        found = f"{failed} of the plates and steps above failed"
        raise SomeFailedError(found, hint=f"mend what they name, then: cellvim study run {file}")


def _planned(file: Path) -> "StudyPlan":
    """Plan a study, and let every command that will be run read its flags now rather than on Saturday night."""
    from cellvim.study import plan_study

    plan = plan_study(file)
    for command in plan.distinct_commands():
        _check(command, file)
    return plan


def _look_into_plates(plan: "StudyPlan") -> None:
    """Find what only ingest would find.

    Raises:
        InputError: Some plates would be refused, or lose fields.
    """
    refused = []
    with chdir(plan.folder):
        for plate in plan.plates:
            _, name, *arguments = plan.ingest(plate)
            parser = _parser(name)
            try:
                with redirect_stdout(StringIO()):
                    parser.invoke(parser.make_context(name, [*arguments, "--dry-run"]))
            except CellvimError as error:
                refused.append(f"{plate.name}: {error.found}")
    if refused:
        found = f"{len(refused)} of {len(plan.plates)} plates would be refused, first {refused[0]}"
        wrong = InputError(found, hint="`cellvim ingest FOLDER --out plates --dry-run` tells all of a plate")
        wrong.details = tuple(refused)
        raise wrong


def _parser(name: str) -> Any:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


def _check(command: Sequence[str], file: Path) -> None:
    name, *arguments = command[command.index("cellvim") + 1 :]
    parser = _parser(name)
    try:
        parser.make_context(name, arguments)
    except _ParserError as error:
        found = f"{file}: {name}: {error.format_message()}"  # type: ignore[attr-defined]
        raise InputError(found, hint=f"`cellvim {name} --help` lists its flags") from error
