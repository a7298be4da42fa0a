"""One field, from files to the store: read once, hash, decode, project, measure, write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellvim.config import IngestSettings
from cellvim.errors import InputError, OutputExistsError
from cellvim.ingest.planes import FieldPlan
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.projection import fingerprint_of, read_projection
from cellvim.provenance import sha256_of_json
from cellvim.store import FieldKey, PlateWriter, SourceFile


class FieldFailedError(InputError):
    """A field could not be written, though its headers looked well."""

    def __init__(self, key: FieldKey, reason: str) -> None:
        self.key, self.reason = key, reason
        hint = "repair the file, or pass --on-missing skip-field (or fill)"
        super().__init__(f"field {key}: {reason}", hint=hint)


@dataclass(frozen=True)
class FieldResult:
    """What became of one field.

    Attributes:
        bytes_out: Compressed size of its pixels.
        filled: Why each filled channel is filled.
    """

    key: FieldKey
    status: Literal["written", "already there"]
    bytes_out: int = 0
    filled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """What all fields of one plate share.

    Attributes:
        was_finished: The plate was complete before this run, so nothing in it may change.
    """

    check: Preflight
    writer: PlateWriter
    settings: IngestSettings
    was_finished: bool


def ingest_field(plan: FieldPlan, job: Job) -> FieldResult:
    """Write one field, unless it is there already from the same files and settings.

    Raises:
        FieldFailedError: A file is damaged, and `on_missing` is not ``fill``.
        OutputExistsError: The finished plate holds this field from other files.
    """
    record = job.writer.record(plan.key)
    if record is not None and (all(record.is_valid) or job.settings.on_missing == "fill"):
        token = _token(_hash_sources(plan, job.check), job.writer)
        if job.writer.is_done(plan.key, token):
            filled = [name for name, ok in zip(job.writer.channels, record.is_valid, strict=True) if not ok]
            size = sum(file.size_bytes for file in record.files)
            return FieldResult(plan.key, "already there", size, tuple(f"{name} before" for name in filled))
    field = _read(plan, job)
    if field.problems and (job.settings.on_missing != "fill" or not any(field.is_valid)):
        raise FieldFailedError(plan.key, field.problems[0])
    token = _token(field.sources, job.writer)
    if job.was_finished and (record is None or record.token != token):
        is_lost = record is None and bool(job.writer.place.names(f"{plan.key.group}/"))
        why = "has a damaged or lost record of" if is_lost else "was made from other files:"
        raise OutputExistsError(job.writer.place.location, why=f"{why} field {plan.key}")
    size = job.writer.write_field(
        plan.key,
        field.pixels,
        token=token,
        is_valid=field.is_valid,
        sources=field.sources,
        quality=field.quality,
    )
    return FieldResult(plan.key, "written", size, tuple(field.problems))


@dataclass
class _Field:
    """A field as read: a plane for each channel, zeros where there is a problem."""

    pixels: NDArray[np.unsignedinteger]
    is_valid: list[bool]
    sources: list[SourceFile]
    quality: list[dict[str, float]]
    problems: list[str]


def _read(plan: FieldPlan, job: Job) -> _Field:
    """Read one channel after the other into its place: no plane is in memory twice for longer than a copy takes."""
    field = _Field(np.zeros((len(plan.channels), *job.check.shape), job.check.dtype), [], [], [], [])
    for number, part in enumerate(plan.channels):
        channel = read_projection(part, job.check, job.settings)
        if channel.plane is not None:
            field.pixels[number] = channel.plane
        if channel.problem:
            field.problems.append(channel.problem)
        field.is_valid.append(channel.plane is not None)
        field.sources += channel.sources
        field.quality.append(channel.measure())
    return field


def _hash_sources(plan: FieldPlan, check: Preflight) -> list[SourceFile]:
    return [
        fingerprint_of(image, check, check.stains[part.channel])
        for part in plan.channels
        for image in part.images
    ]


def _token(sources: Sequence[SourceFile], writer: PlateWriter) -> str:
    return sha256_of_json({"plate": writer.plate_record(), "sources": [vars(source) for source in sources]})
