"""Look at every file's header before anything is written, and decide field by field what will be."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from cellvim.config import IngestSettings
from cellvim.errors import InputError, PreflightError
from cellvim.ingest.channels import name_channels
from cellvim.ingest.images import Header, read_header
from cellvim.ingest.planes import ChannelPlan, FieldPlan, plan_fields
from cellvim.ingest.sources import ImagePart, SourcePlate, some
from cellvim.ingest.tiff import DamagedImageError

ALLOWED_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True)
class Preflight:
    """What is there, what is wrong with it, and what will be made of it.

    Attributes:
        plate: The plate as its source describes it.
        stains: Channel key to stain, in the order of the store.
        dtype: Of most planes.
        shape: Height and width of most planes, pixels.
        fields: Fields to be written; a channel with a problem will be filled.
        found: Number of fields that have at least one file.
        skipped: Well or field to the reason why it will not be written.
        notes: Oddities that do no harm, the source's and those found here.
        problems: One line each, worst first.
        size_bytes: Size of all files to be read.
    """

    plate: SourcePlate
    stains: Mapping[str, str]
    dtype: np.dtype[np.unsignedinteger]
    shape: tuple[int, int]
    fields: tuple[FieldPlan, ...]
    found: int
    skipped: Mapping[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    size_bytes: int

    @property
    def wells(self) -> set[str]:
        """Every well that the plate names, written or not."""
        return {plan.key.well for plan in self.fields} | {unit.partition("/")[0] for unit in self.skipped}

    def refuse(self, *, on_missing: str) -> None:
        """Stop here if anything is wrong that the user did not choose to go on without.

        Raises:
            PreflightError: With every problem.
            InputError: Nothing would be left of the plate.
        """
        if self.problems and on_missing == "stop":
            hint = "repair the files, or go on with --on-missing skip-field (or fill)"
            raise PreflightError(self.plate.name, self.problems, hint=hint)
        if not self.fields:
            found = f"plate {self.plate.name}: none of its {self.found} fields is usable; {self.problems[0]}"
            raise InputError(found, hint="see all problems with --dry-run")


def check_plate(plate: SourcePlate, settings: IngestSettings) -> Preflight:
    """Check all files of a plate, without reading pixels.

    Raises:
        InputError: Nothing usable, or a setting that does not fit the plate.
    """
    plans = plan_fields(plate, settings)
    stains = name_channels([plan.channel for plan in plans[0].channels], plate.stains, settings.channels)
    headers = _read_headers(
        {image for plan in plans for part in plan.channels for image in part.images}, settings
    )
    dtype, shape = _usual(plate, headers)
    checked = [_check_field(plan, headers, dtype, shape) for plan in plans]
    problems = _problems(checked, stains)
    kept, skipped = _sort_out(checked, stains, on_missing=settings.on_missing)
    skipped |= _wells_without_images(plate, plans)
    return Preflight(
        plate=plate,
        stains=stains,
        dtype=np.dtype(dtype),
        shape=shape,
        fields=tuple(kept),
        found=len(plans),
        skipped=skipped,
        problems=tuple(problems),
        notes=(*plate.notes, *_notes(plans)),
        size_bytes=sum(header.size_bytes for header in headers.values() if isinstance(header, Header)),
    )


Finding = Header | str
"""What an image's header says, or what is wrong with it."""


def _read_headers(images: Iterable[ImagePart], settings: IngestSettings) -> dict[ImagePart, Finding]:
    ordered = sorted(images)
    with ThreadPoolExecutor(settings.workers) as pool:
        return dict(zip(ordered, pool.map(_read_one, ordered), strict=True))


def _read_one(image: ImagePart) -> Finding:
    try:
        return read_header(image)
    except DamagedImageError as error:
        return error.found


def _usual(plate: SourcePlate, headers: Mapping[ImagePart, Finding]) -> tuple[str, tuple[int, int]]:
    """Data type and size of most planes; everything else is a stray."""
    good = [header for header in headers.values() if isinstance(header, Header)]
    allowed = [header for header in good if header.dtype in ALLOWED_DTYPES]
    if not allowed:
        image, header = next(iter(headers.items()))
        what = header if isinstance(header, str) else f"holds {header.dtype}, expected uint8 or uint16"
        found = f"plate {plate.name}: none of its {len(headers)} images is usable; {image.name} {what}"
        raise InputError(found, hint="name the folder of the microscope's own images")
    dtype = Counter(header.dtype for header in allowed).most_common(1)[0][0]
    sizes = Counter((header.height, header.width) for header in allowed if header.dtype == dtype)
    return dtype, max(sizes, key=lambda size: (sizes[size], size))


def _check_field(
    plan: FieldPlan,
    headers: Mapping[ImagePart, Finding],
    dtype: str,
    shape: tuple[int, int],
) -> FieldPlan:
    checked = []
    for part in plan.channels:
        problem = part.problem
        for image in part.images:
            problem = problem or _problem_of(image, headers[image], dtype, shape)
        checked.append(replace(part, problem=problem))
    return replace(plan, channels=tuple(checked))


def _problem_of(image: ImagePart, header: Finding, dtype: str, shape: tuple[int, int]) -> str | None:
    if isinstance(header, str):
        return f"{image.name} {header}"
    if header.dtype != dtype:
        return f"{image.name} holds {header.dtype}, the other planes {dtype}"
    if (header.height, header.width) != shape:
        return f"{image.name} is {header.width} x {header.height} pixels, the others {shape[1]} x {shape[0]}"
    return None


def _problems(plans: Sequence[FieldPlan], stains: Mapping[str, str]) -> list[str]:
    """Damaged planes first, as missing ones are often known."""
    found = [
        (part.problem.startswith("is missing"), f"{plan.key} {stains[part.channel]}: {part.problem}")
        for plan in plans
        for part in plan.channels
        if part.problem
    ]
    return [line for _, line in sorted(found, key=lambda pair: pair[0])]


def _sort_out(
    plans: Sequence[FieldPlan], stains: Mapping[str, str], *, on_missing: str
) -> tuple[list[FieldPlan], dict[str, str]]:
    kept, skipped = [], {}
    for plan in plans:
        bad = [part for part in plan.channels if part.problem]
        if not bad or (on_missing == "fill" and len(bad) < len(plan.channels)):
            kept.append(replace(plan, channels=tuple(_without_files(part) for part in plan.channels)))
        else:
            skipped[str(plan.key)] = f"{stains[bad[0].channel]} {bad[0].problem}"
    return kept, skipped


def _without_files(part: ChannelPlan) -> ChannelPlan:
    return replace(part, images=()) if part.problem else part


def _wells_without_images(plate: SourcePlate, plans: Sequence[FieldPlan]) -> dict[str, str]:
    present = {plan.key.well for plan in plans}
    return {
        well: "named by the source's plan, but has no images"
        for well in plate.declared_wells
        if well not in present
    }


def _notes(plans: Sequence[FieldPlan]) -> list[str]:
    """Wells with fewer fields than most: allowed, but it may mean that an acquisition broke off."""
    counts = Counter(plan.key.well for plan in plans)
    usual = Counter(counts.values()).most_common(1)[0][0]
    fewer = [f"{well} ({count})" for well, count in counts.items() if count < usual]
    return [f"{len(fewer)} well(s) have fewer than {usual} fields: {some(fewer, 6)}"] if fewer else []
