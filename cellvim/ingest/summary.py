"""What an ingest did, or in a dry run would do: for the screen, for `--json`, and for other stages."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellvim.errors import SomeFailedError


@dataclass(frozen=True)
class PlateResult:
    """One plate.

    Attributes:
        evidence: How its source was recognised.
        wells: Number of wells written.
        fields: Number of fields written.
        skipped: Well (``B03``) or field (``B03/1``) to the reason why it is not in the plate.
        failed: The part of `skipped` that was found only while reading pixels.
        filled: Field to the channels that hold zeros, and why.
        problems: What preflight found, one line each.
        warnings: Oddities that do no harm.
        bytes_in: Size of the source files.
        bytes_out: Size of the compressed pixels; 0 in a dry run.
        was_resumed: At least one field was already there.
    """

    name: str
    path: Path
    evidence: str
    channels: tuple[str, ...]
    wells: int
    fields: int
    skipped: Mapping[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    bytes_in: int
    failed: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, str] = field(default_factory=dict)
    bytes_out: int = 0
    seconds: float = 0.0
    was_resumed: bool = False

    def lines(self, *, is_dry_run: bool) -> list[str]:
        """Say it to a person."""
        counts = f"{self.wells} wells, {self.fields} fields, channels {', '.join(self.channels)}"
        size = f"{self.bytes_in / 1e6:,.1f} MB of images"
        if not is_dry_run:
            size += f" in {self.bytes_out / 1e6:,.1f} MB, {self.seconds:.1f} s"
        state = "would be written" if is_dry_run else "resumed" if self.was_resumed else "written"
        named = [
            *(f"problem: {line}" for line in self.problems if is_dry_run),
            *(f"skipped: {unit}: {why}" for unit, why in self.skipped.items()),
            *(f"filled with zeros: {unit}: {why}" for unit, why in self.filled.items()),
            *(f"note: {line}" for line in self.warnings),
        ]
        return [f"{self.path}  {counts}  {size}  {state}", *(f"  {line}" for line in [self.evidence, *named])]


@dataclass(frozen=True)
class IngestSummary:
    """All plates of one ingest, by name."""

    plates: tuple[PlateResult, ...]
    is_dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        plates = [{**asdict(plate), "path": str(plate.path)} for plate in self.plates]
        return {"is_dry_run": self.is_dry_run, "plates": plates}

    def __str__(self) -> str:
        return "\n".join(line for plate in self.plates for line in plate.lines(is_dry_run=self.is_dry_run))

    def refuse_failures(self) -> None:
        """Say at the end that some fields could not be read, with everything else done.

        Raises:
            FieldsFailedError: At least one field failed.
        """
        failed = [
            f"{plate.name} {unit}: {why}" for plate in self.plates for unit, why in plate.failed.items()
        ]
        if failed:
            raise FieldsFailedError(self, failed)


class FieldsFailedError(SomeFailedError):
    """Some fields could not be read; the plates are finished without them.

    Attributes:
        summary: What was done.
    """

    def __init__(self, summary: IngestSummary, failed: list[str]) -> None:
        self.summary = summary
        more = f" (and {len(failed) - 1} more, see skipped.json)" if len(failed) > 1 else ""
        hint = (
            "the plates are finished without these fields; repair the files and pass --overwrite to add them"
        )
        super().__init__(f"{len(failed)} field(s) could not be read: {failed[0]}{more}", hint=hint)
