"""One field, from files to the store: read once, hash, decode, project, measure, write."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

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
    channels = [read_projection(part, job.check, job.settings) for part in plan.channels]
    problems = tuple(channel.problem for channel in channels if channel.problem)
    if problems and (job.settings.on_missing != "fill" or len(problems) == len(channels)):
        raise FieldFailedError(plan.key, problems[0])
    sources = [source for channel in channels for source in channel.sources]
    token = _token(sources, job.writer)
    if job.was_finished and (record is None or record.token != token):
        is_lost = record is None and bool(job.writer.place.names(f"{plan.key.group}/"))
        why = "has a damaged or lost record of" if is_lost else "was made from other files:"
        raise OutputExistsError(job.writer.place.location, why=f"{why} field {plan.key}")
    empty = np.zeros(job.check.shape, job.check.dtype)
    pixels = np.stack([empty if channel.plane is None else channel.plane for channel in channels])
    is_valid = [channel.plane is not None for channel in channels]
    quality = [channel.measure() for channel in channels]
    size = job.writer.write_field(
        plan.key, pixels, token=token, is_valid=is_valid, sources=sources, quality=quality
    )
    return FieldResult(plan.key, "written", size, problems)


def _hash_sources(plan: FieldPlan, check: Preflight) -> list[SourceFile]:
    return [
        fingerprint_of(image, check, check.stains[part.channel])
        for part in plan.channels
        for image in part.images
    ]


def _token(sources: Sequence[SourceFile], writer: PlateWriter) -> str:
    return sha256_of_json({"plate": writer.plate_record(), "sources": [asdict(source) for source in sources]})
