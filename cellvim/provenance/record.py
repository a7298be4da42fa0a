"""The schema of `run.json`, and reading one as what it is: text from a stranger."""

import json
import os
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cellvim.errors import InputError, NotFoundError
from cellvim.provenance.hashes import sha256_of_json

SCHEMA = 2
"""Raised when a key changes its meaning. 1: records of before this number, which lack everything with a default."""
MOST_BYTES = 64 * 2**20
"""A record of a thousand plates in which every well failed has less."""
PLACES = {
    "ingest": {"sources", "out", "platemap", "images", "workers", "overwrite", "dry_run"},
    "pretrain": {"plates", "out", "overwrite", "log_every", "checkpoint_every", "device"},
    "embed": {"plates", "model", "masks", "out", "overwrite", "workers", "readers", "device", "anndata"},
    "normalize": {"tables", "out", "platemap", "save", "fitted", "overwrite"},
    "evaluate": {"tables", "out", "platemap", "relations", "left_out", "overwrite"},
    "import-checkpoint": {"file", "out", "overwrite"},
}
"""Settings of each stage that say where things lie or what works on them; all others decide what comes out."""
_ENGINE_PLACES = {"workers", "is_logged_to_tensorboard"}

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Artifact(Strict):
    """Something that a run read or wrote, with a hash of its content."""

    name: str
    """What records and reports call it; never a path of one machine."""
    kind: str = "file"
    """What the hash is of. `file`: its bytes. `plate`: the checksums of its pixels, its plate map and what was
    skipped; `pixels`: the first of these. `images`: the SHA-256 of every source file, by name. `label images`: the
    same of a folder of masks. `description`: a text inside of an image."""
    path: str
    """As it was given, relative to `cwd` of the record; or a URL."""
    sha256: Sha256
    count: int | None = None
    """Files behind it, where it is more than one."""
    of: tuple[str, ...] = ()
    """Names of the plates that `label images` belong to."""

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, content: Any) -> Any:
        if isinstance(content, dict) and isinstance(content.get("of"), list):
            return {**content, "of": tuple(content["of"])}
        return content


class RunRecord(Strict):
    """Content of `run.json` (of a table: `NAME.run.json`)."""

    cellvim: str
    """Version."""
    command: tuple[str, ...]
    """Program and arguments. Anything but `cellvim`, `python -m cellvim` and `torchrun ... -m cellvim` means that the
    library was called by another program."""
    stage: str
    settings: dict[str, Any]
    """All of them, defaults included."""
    settings_sha256: str
    seed: int | None = None
    inputs: dict[str, str]
    """SHA-256 of what was read, by name; `reads` says more."""
    counts: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    packages: dict[str, str] = {}
    """Versions of Python and of the libraries."""
    machine: dict[str, Any] = {}
    started: str = ""
    ended: str = ""
    seconds: float = 0.0
    sha256: str | None = None
    """Of the rest of the record, in the record of a plate."""
    schema_version: int = 1
    cwd: str | None = None
    """Working directory, which relative paths start from."""
    record: str | None = None
    """Where the record was written, relative to `cwd`: tells how far a moved folder has moved."""
    environment: dict[str, str] = {}
    """Those variables that can change results."""
    code: dict[str, str | None] = {}
    """`sha256` of the source code in use, and the `commit` of its checkout, if it is one."""
    recipe_sha256: str | None = None
    """Hash of the settings without places: the same in any folder."""
    reads: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    attempts: tuple[dict[str, Any], ...] = ()
    """Start, machine and command of every attempt that is known of, the last one included."""

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        names = ("command", "reads", "outputs", "attempts")
        return {
            key: tuple(value) if key in names and isinstance(value, list) else value
            for key, value in content.items()
        }

    @property
    def is_untouched(self) -> bool:
        """Whether the settings are still those that were hashed."""
        return sha256_of_json(self.settings) == self.settings_sha256

    @classmethod
    def parse(cls, content: bytes, *, origin: Path | str) -> Self:
        """Check a record from anywhere.

        Raises:
            InputError: It is none, or of a later version of cellvim.
        """
        hint = "give a run.json, a NAME.run.json, or a folder with one, as cellvim wrote it"
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError) as error:
            found = f"{origin} is not JSON"
            raise InputError(found, hint=hint) from error
        _refuse_impossible_names(parsed, origin)
        written = parsed.get("schema_version") if isinstance(parsed, dict) else None
        if isinstance(written, int) and written > SCHEMA:
            found = f"{origin} was written by a later version of cellvim ({parsed.get('cellvim')})"
            raise InputError(found, hint="install that version")
        try:
            return cls.model_validate(parsed)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            found = f"{origin} is no record of a run: {where}: {first['msg']}"
            raise InputError(found, hint=hint) from error


def read_record(path: Path) -> RunRecord:
    """Read a record from a file.

    Raises:
        NotFoundError: No such file.
        InputError: It is too large, or no record.
    """
    if not path.is_file():
        raise NotFoundError(path, expected="record of a run", hint="give a run.json, or a folder with one")
    if path.stat().st_size > MOST_BYTES:
        found = f"{path} has {path.stat().st_size:,} bytes, more than any record of a run"
        raise InputError(found, hint="give a run.json as cellvim wrote it")
    return RunRecord.parse(path.read_bytes(), origin=path)


def _refuse_impossible_names(parsed: Any, origin: Path | str) -> None:
    """Names of files may hold bytes that are no text, but nothing that no system takes."""
    text = json.dumps(parsed, ensure_ascii=False)
    try:
        os.fsencode(text)
        is_possible = "\\u0000" not in text
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        found = f"{origin} holds characters that can be in no name"
        raise InputError(found, hint="give a run.json as cellvim wrote it")


def recipe_sha256(stage: str, settings: dict[str, Any]) -> str:
    """Hash of what decides the result, whatever the folders are called."""
    return sha256_of_json(decisive(stage, settings))


def decisive(stage: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that decide what comes out."""
    places = PLACES.get(stage, set())
    kept = {key: value for key, value in settings.items() if key not in places}
    engine = kept.get("engine")
    if isinstance(engine, dict):
        kept["engine"] = {key: value for key, value in engine.items() if key not in _ENGINE_PLACES}
    return kept
