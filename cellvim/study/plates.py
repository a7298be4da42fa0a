"""Which plates a study is about: from a list, a table or patterns to names and folders."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from cellvim.config import StudyPlate, StudySettings
from cellvim.errors import InputError, NotFoundError
from cellvim.store.naming import safe_name

MOST_PLATES = 100_000
_TABLE_COLUMNS = ("name", "images", "platemap")


def study_plates(settings: StudySettings, folder: Path) -> tuple[StudyPlate, ...]:
    """List the plates of a study, sorted by name.

    Args:
        settings: The study.
        folder: That of the study file, which relative paths start from.

    Raises:
        NotFoundError: A pattern matches nothing, or a named folder or plate map is not there.
        InputError: Two plates have one name, or a table of plates lacks a column.
    """
    plates = tuple(sorted(_named(settings, folder), key=lambda plate: plate.name))
    _refuse_twins(plates)
    for plate in plates:
        _require(folder, plate.images, "images", plate.name)
        if plate.platemap is not None:
            _require(folder, plate.platemap, "plate map", plate.name)
    if settings.platemap is not None:
        _require(folder, settings.platemap, "plate map", "the study")
    return plates


def _named(settings: StudySettings, folder: Path) -> Sequence[StudyPlate]:
    match settings.plates:
        case str(path) if path.endswith(".csv"):
            return _from_table(folder / path)
        case str(pattern):
            return _matching([pattern], folder)
        case entries:
            patterns = [entry for entry in entries if isinstance(entry, str)]
            named = [entry for entry in entries if isinstance(entry, StudyPlate)]
            return [*named, *(_matching(patterns, folder) if patterns else ())]


def _from_table(path: Path) -> list[StudyPlate]:
    if not path.is_file():
        raise NotFoundError(
            path, expected="table of plates", hint="`plates:` names it; see `cellvim study init`"
        )
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        found = f"{path} is not a CSV table: {str(error).splitlines()[0]}"
        raise InputError(
            found, hint="its columns are name, images and, if there are plate maps, platemap"
        ) from error
    missing = [column for column in _TABLE_COLUMNS[:2] if column not in table.columns]
    if missing:
        found = f"{path} has no column {' and '.join(missing)} (found {', '.join(table.columns)})"
        raise InputError(found, hint="its columns are name, images and, if there are plate maps, platemap")
    if table.height > MOST_PLATES:
        found = f"{path} names {table.height} plates, more than {MOST_PLATES}"
        raise InputError(found, hint="divide the study")
    columns = [column for column in _TABLE_COLUMNS if column in table.columns]
    return [
        StudyPlate.checked({key: value for key, value in row.items() if value}, origin=path)
        for row in table.select(columns).iter_rows(named=True)
    ]


def _matching(patterns: Sequence[str], folder: Path) -> list[StudyPlate]:
    found: dict[Path, None] = {}
    for pattern in patterns:
        root = Path("/") if pattern.startswith("/") else folder
        hint = "`plates:` is a pattern such as images/*, read from the folder of the study file"
        try:
            matches = [path for path in sorted(root.glob(pattern.lstrip("/"))) if _may_be_plate(path)]
        except ValueError as error:
            raise InputError(f"{pattern!r} is no pattern: {error}", hint=hint) from error  # noqa: EM102
        if not matches:
            raise NotFoundError(root / pattern.lstrip("/"), expected="folder of images", hint=hint)
        found.update(dict.fromkeys(path if root != folder else path.relative_to(folder) for path in matches))
    return [StudyPlate(name=_name_for(path), images=path) for path in found]


def _name_for(path: Path) -> str:
    stem = path.stem if path.suffix == ".csv" else path.name
    try:
        return safe_name(stem)
    except InputError as error:
        hint = "name it yourself, in a list or a table of plates: name, images, platemap"
        raise InputError(error.found, hint=hint) from error


def _may_be_plate(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.suffix == ".csv")


def _refuse_twins(plates: Sequence[StudyPlate]) -> None:
    for plate in plates:
        if plate.name.endswith(".thumbnails"):
            found = f"plate {plate.name}: its table would have the name of another plate's thumbnails"
            raise InputError(found, hint="give it a name that does not end with .thumbnails")
    twins = [name for name, count in Counter(plate.name for plate in plates).items() if count > 1]
    if twins:
        found = f"{len(twins)} names stand for more than one plate, first {twins[0]}"
        raise InputError(
            found, hint="give each its own with a list or a table of plates: name, images, platemap"
        )


def _require(folder: Path, path: Path, what: str, whose: str) -> None:
    if not (folder / path).exists():
        hint = "paths in a study file start from its own folder"
        raise NotFoundError(folder / path, expected=f"{what} of {whose}", hint=hint)
