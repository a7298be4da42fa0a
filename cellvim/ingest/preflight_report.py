"""What a dry run says of a plate: on one page for people, field by field for machines."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cellvim.config import IngestSettings
from cellvim.ingest.estimate import Estimate, as_size, estimate, free_bytes
from cellvim.ingest.planes import STATES, ChannelPlan, FieldPlan, State
from cellvim.ingest.preflight import Preflight, sort_out
from cellvim.ingest.sources import ImagePart, Wavelengths
from cellvim.store import well_position
from cellvim.store.naming import row_name
from cellvim.terminal import printable

MOST_LINES = 20
MARKS: dict[State | None, str] = {
    "complete": "#",
    "missing": "-",
    "odd": "~",
    "doubled": "2",
    "damaged": "!",
    None: ".",
}
"""How the picture of the plate shows a well, by its worst field; None: it has no images."""
# Rows and columns of plates of 96, 384 and 1536 wells; the picture is that of the smallest that fits. A source seldom
# says how many wells there are, and fewer than 96 are rare.
_PLATES = ((8, 12), (16, 24), (32, 48))


@dataclass(frozen=True)
class PlateReport:
    """A checked plate, and what writing it would take.

    Attributes:
        guess: None where not one plane could be tried.
        free_bytes: Free space at the target; None if it does not say.
    """

    check: Preflight
    settings: IngestSettings
    path: str
    guess: Estimate | None
    free_bytes: int | None

    @classmethod
    def of(cls, check: Preflight, settings: IngestSettings, *, path: str) -> "PlateReport":
        """Try some planes of a checked plate."""
        return cls(check, settings, path, estimate(check, settings), free_bytes(settings.out))

    def lines(self) -> list[str]:
        """Say it to a person, in at most 80 columns but for names and problems."""
        check = self.check
        facts = [
            check.plate.evidence,
            *self._size_lines(),
            *_channel_lines(check),
            *draw_plate(check.planned),
            *self._count_lines(),
            *some_lines("problem", check.problems),
            *self._cost_lines(),
            *self._policy_lines(),
            *some_lines("left out", [f"{unit}: {why}" for unit, why in check.skipped.items()]),
            *(f"note: {line}" for line in self.notes),
        ]
        lines = [f"{check.plate.name}  would be written to {self.path}", *(f"  {line}" for line in facts)]
        return [printable(line) for line in lines]

    @property
    def notes(self) -> tuple[str, ...]:
        """Oddities that do no harm, and what turned up while planes were tried."""
        damaged = self.guess.damaged if self.guess else ()
        return (*self.check.notes, *(f"found by trying it: {line}" for line in damaged))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able content, every field and file included."""
        check = self.check
        return {
            "name": check.plate.name,
            "path": self.path,
            "evidence": check.plate.evidence,
            "acquired": check.plate.acquired,
            "barcode": check.plate.barcode,
            "pixel_size_um": check.plate.pixel_size_um,
            "dtype": check.dtype.name,
            "shape_px": list(check.shape),
            "channels": [_channel_dict(check, key) for key in check.stains],
            "counts": self.counts(),
            "bytes_in": check.size_bytes,
            "estimate": None
            if self.guess is None
            else {**asdict(self.guess), "workers": self.settings.workers},
            "free_bytes": self.free_bytes,
            "policies": {policy: _foresee(check, policy) for policy in ("skip-field", "fill")},
            "problems": list(check.problems),
            "notes": list(self.notes),
            "skipped": dict(check.skipped),
            "fields": [_field_dict(plan, check) for plan in check.planned],
        }

    def counts(self) -> dict[str, Any]:
        """Numbers of wells, fields, files, and of planes and fields by state."""
        check = self.check
        fields = [plan.state for plan in check.planned]
        return {
            "wells": len({plan.key.well for plan in check.planned}),
            "fields": len(fields),
            "files": check.file_count,
            "thumbnails": check.plate.thumbnails,
            "planes_by_state": check.count_planes(),
            "fields_by_state": {state: fields.count(state) for state in STATES},
        }

    def _size_lines(self) -> list[str]:
        check, counts = self.check, self.counts()
        height, width = check.shape
        size = check.plate.pixel_size_um
        pixel = f", {size:g} um a pixel" if size else ", pixel size unknown"
        units = [f"{counts[what]:,} {what}" for what in ("wells", "fields", "files")]
        lines = [", ".join(units), f"{width} x {height} pixels, {check.dtype.name}{pixel}"]
        return [*lines, f"acquired {check.plate.acquired}"] if check.plate.acquired else lines

    def _count_lines(self) -> list[str]:
        counts = self.check.count_planes()
        named = [f"{counts[state]:,} {state}" for state in STATES if counts[state] or state == "complete"]
        thumbnails = self.check.plate.thumbnails
        named += [f"{thumbnails:,} thumbnails not counted"] if thumbnails else []
        return [f"{sum(counts.values()):,} planes: {', '.join(named)}"]

    def _cost_lines(self) -> list[str]:
        lines = [f"in: {as_size(self.check.size_bytes)} of images"]
        if self.guess is None:
            why = "no plane could be read" if self.check.fields else "no field is complete"
            return [*lines, f"out: cannot be estimated, as {why}"]
        guess, workers = self.guess, self.settings.workers
        lines.append(
            f"out: about {as_size(guess.bytes_out)} in {guess.seconds:,.1f} s or more with {workers} "
            f"worker{'s' if workers > 1 else ''}, by trying {guess.planes} planes"
        )
        if self.free_bytes is None:
            return lines
        lines.append(f"free: {as_size(self.free_bytes)}")
        if guess.bytes_out > self.free_bytes:
            lines[-1] += ": TOO LITTLE for what this plate is estimated to take"
        return lines

    def _policy_lines(self) -> list[str]:
        if not self.check.problems:
            return []
        total = len(self.check.planned)
        skip, fill = (_foresee(self.check, policy) for policy in ("skip-field", "fill"))
        left = f" and leave {fill['fields_left_out']:,} fields out" if fill["fields_left_out"] else ""
        return [
            f"--on-missing skip-field would leave {skip['fields_left_out']:,} of {total:,} fields out",
            f"--on-missing fill would fill {fill['planes_filled']:,} planes with zeros, marked invalid{left}",
        ]


def some_lines(what: str, lines: Sequence[str]) -> list[str]:
    """Label lines, and name those beyond what a screen holds by their number."""
    shown = [f"{what}: {line}" for line in lines[:MOST_LINES]]
    rest = len(lines) - len(shown)
    return [*shown, f"... and {rest:,} more {what} lines: all of them with --json"] if rest else shown


def draw_plate(plans: Sequence[FieldPlan]) -> list[str]:
    """Draw the wells of a plate in characters, and say what the characters mean."""
    marks = {well_position(well): MARKS[state] for well, state in _well_states(plans).items()}
    last_row, last_column = (max(position[axis] for position in marks) for axis in (0, 1))
    rows, columns = next(
        (size for size in _PLATES if size[0] >= last_row and size[1] >= last_column), _PLATES[-1]
    )
    step = 3 if columns <= 24 else 1
    numbers = [f"{number:{step}d}" if step > 1 else str(number % 10) for number in range(1, columns + 1)]
    picture = [
        f"{row_name(row):>2} "
        + "".join(f"{marks.get((row, column), MARKS[None]):>{step}}" for column in range(1, columns + 1))
        for row in range(1, rows + 1)
    ]
    used = {mark for line in picture for mark in line[3:]}
    legend = [f"{mark} {state or 'no images'}" for state, mark in MARKS.items() if mark in used]
    return ["   " + "".join(numbers), *picture, "   " + "   ".join(legend)]


def _well_states(plans: Sequence[FieldPlan]) -> dict[str, State]:
    by_well: dict[str, list[State]] = defaultdict(list)
    for plan in plans:
        by_well[plan.key.well].append(plan.state)
    return {well: max(states, key=STATES.index) for well, states in by_well.items()}


def _channel_lines(check: Preflight) -> list[str]:
    width = max(map(len, check.stains))
    return [
        f"channel {key:{width}}  {stain}{_light(check.plate.wavelengths.get(key))}"
        for key, stain in check.stains.items()
    ]


def _light(light: Wavelengths | None) -> str:
    pairs = (("excitation", light.excitation_nm), ("emission", light.emission_nm)) if light else ()
    named = [f"{what} {value:g} nm" for what, value in pairs if value is not None]
    return f"  ({', '.join(named)})" if named else ""


def _channel_dict(check: Preflight, key: str) -> dict[str, Any]:
    light = check.plate.wavelengths.get(key, Wavelengths())
    return {"key": key, "stain": check.stains[key], **asdict(light)}


def _foresee(check: Preflight, policy: str) -> dict[str, int]:
    kept, skipped = sort_out(check.planned, check.stains, on_missing=policy)
    filled = sum(part.problem is not None for plan in kept for part in plan.channels)
    return {"fields_left_out": len(skipped), "planes_filled": filled}


def _field_dict(plan: FieldPlan, check: Preflight) -> dict[str, Any]:
    channels = {check.stains[part.channel]: _part_dict(part, check) for part in plan.channels}
    return {"well": plan.key.well, "site": plan.key.site, "state": plan.state, "channels": channels}


def _part_dict(part: ChannelPlan, check: Preflight) -> dict[str, Any]:
    files = [_relative(image, check) for image in part.images]
    return {"state": part.state, "files": files, "problem": part.problem}


def _relative(image: ImagePart, check: Preflight) -> str:
    folder = check.plate.folder
    path = image.path.relative_to(folder) if image.path.is_relative_to(folder) else image.path
    part = "/".join(map(str, image.part))
    return f"{path.as_posix()}#{part}" if part else path.as_posix()
