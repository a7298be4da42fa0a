"""The folder that receives an import: what may be replaced in it, and by whom."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cellvim.atomic import TEMPORARY_MARK, locked, remove_leftovers
from cellvim.config import ImportSettings
from cellvim.errors import InputError, OutputExistsError
from cellvim.model.checkpoint import WEIGHTS_NAME, ModelCard, load_encoder

RUN_MARKS = ("checkpoints", "metrics.jsonl", "summary.json")
"""What `cellvim pretrain` leaves and no import does: the first from its first moment, the last at its end."""


@contextmanager
def claimed(settings: ImportSettings, card: ModelCard) -> Iterator[None]:
    """Hold the output folder, which has nothing in it but what may be replaced.

    Raises:
        OutputExistsError: It has, or is a file.
        LockedError: Another process writes there.
    """
    out = settings.out
    if out.exists() and not out.is_dir():
        raise OutputExistsError(out, why="is a file", hint="choose another --out")
    # Before anything of ours lies there, the lock included.
    _refuse_runs(out)
    with locked(out):
        if not settings.overwrite:
            _refuse_others(out, card)
        remove_leftovers(out)
        yield


def _refuse_runs(out: Path) -> None:
    """Refuse a training run in any case: pictures and results of its model would stay beside another."""
    if any((out / mark).exists() for mark in RUN_MARKS):
        hint = "choose another --out; an import never replaces a training run"
        raise OutputExistsError(out, why="is a training run", hint=hint)


def _refuse_others(out: Path, card: ModelCard) -> None:
    """Refuse to replace anything but the same model, which is simply written again."""
    names = {path.name for path in out.iterdir() if not path.name.startswith(TEMPORARY_MARK)} - {"lock"}
    if not names:
        return
    if WEIGHTS_NAME not in names:
        raise OutputExistsError(out, why="is not empty")
    try:
        _, present = load_encoder(out)
    except InputError as error:
        raise OutputExistsError(out, why="holds weights of another kind") from error
    if present != card:
        raise OutputExistsError(out, why="holds another model")
