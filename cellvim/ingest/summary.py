"""What an ingest did, or in a dry run would do: for the screen, for `--json`, and for other stages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cellvim.errors import InputError, SomeFailedError
from cellvim.ingest.preflight_report import PlateReport, some_lines
from cellvim.ingest.sources import some


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
        report: What a dry run has to say; None if this was none.
    """

    name: str
    path: Path | str
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
    report: PlateReport | None = None

    def lines(self) -> list[str]:
        """Say it to a person."""
        if self.report is not None:
            return self.report.lines()
        counts = f"{self.wells} wells, {self.fields} fields, channels {', '.join(self.channels)}"
        size = (
            f"{self.bytes_in / 1e6:,.1f} MB of images in {self.bytes_out / 1e6:,.1f} MB, {self.seconds:.1f} s"
        )
        state = "resumed" if self.was_resumed else "written"
        named = [
            *some_lines("skipped", [f"{unit}: {why}" for unit, why in self.skipped.items()]),
            *some_lines("filled with zeros", [f"{unit}: {why}" for unit, why in self.filled.items()]),
            *(f"note: {line}" for line in self.warnings),
        ]
        return [f"{self.path}  {counts}  {size}  {state}", *(f"  {line}" for line in [self.evidence, *named])]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        if self.report is not None:
            return self.report.as_dict()
        content = asdict(replace(self, report=None))
        del content["report"]
        return {**content, "path": str(self.path)}


@dataclass(frozen=True)
class IngestSummary:
    """All plates of one ingest, by name.

    Attributes:
        failed: Source or plate to the reason why nothing could be made of it, while others could be.
    """

    plates: tuple[PlateResult, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    is_dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content."""
        plates = [plate.as_dict() for plate in self.plates]
        return {"is_dry_run": self.is_dry_run, "plates": plates, "failed": dict(self.failed)}

    def __str__(self) -> str:
        lines = [line for plate in self.plates for line in plate.lines()]
        return "\n".join([*lines, *(f"{name}  failed: {why}" for name, why in self.failed.items())])

    def refuse_failures(self) -> None:
        """Say at the end that some plates or fields could not be read, with everything else done.

        Raises:
            FieldsFailedError: At least one of them failed.
        """
        fields = [
            f"{plate.name} {unit}: {why}" for plate in self.plates for unit, why in plate.failed.items()
        ]
        plates = [f"{name}: {why}" for name, why in self.failed.items()]
        if plates or fields:
            raise FieldsFailedError(self, plates, fields)

    def refuse_foreseen(self) -> None:
        """After a dry run, end as the ingest itself would, as far as can be known without reading all pixels.

        Raises:
            InputError: It would be refused.
            SomeFailedError: It would leave a whole source or plate out.
        """
        bad = [plate.name for plate in self.plates if plate.problems] + list(self.failed)
        usable = [plate.name for plate in self.plates if plate.fields]
        if not self.is_dry_run or not bad:
            return
        is_stopped = any(plate.report and plate.report.settings.on_missing == "stop" for plate in self.plates)
        if is_stopped or not usable:
            found = (
                f"{len(bad)} of {len(self.plates) + len(self.failed)} plates would be refused: {some(bad)}"
            )
            has_problems = any(plate.problems for plate in self.plates)
            hint = "repair the files, or go on with --on-missing skip-field (or fill)"
            raise InputError(found, hint=hint if has_problems else "what to do is said of each of them above")
        lost = [name for name in bad if name not in usable]
        if lost:
            found = (
                f"{len(lost)} of {len(self.plates) + len(self.failed)} plates would be left out: {some(lost)}"
            )
            raise SomeFailedError(found, hint="repair their files to have them, too")


class FieldsFailedError(SomeFailedError):
    """Some plates or fields could not be read; everything else is finished.

    Attributes:
        summary: What was done.
    """

    def __init__(self, summary: IngestSummary, plates: Sequence[str], fields: Sequence[str]) -> None:
        self.summary = summary
        counts = [
            f"{len(lines)} {what}(s)" for what, lines in (("plate", plates), ("field", fields)) if lines
        ]
        failed = [*plates, *fields]
        more = f" (and {len(failed) - 1} more, see above)" if len(failed) > 1 else ""
        hint = "the rest is finished without them; repair the files and pass --overwrite to add them"
        super().__init__(f"{' and '.join(counts)} could not be read: {failed[0]}{more}", hint=hint)
