"""Look at every file's header before anything is written, and decide field by field what will be."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.channels import drop_channels, name_channels
from cellvim.ingest.headers import Finding, read_headers
from cellvim.ingest.images import Header
from cellvim.ingest.images.tiff import NOT_THERE
from cellvim.ingest.planes import STATES, ChannelPlan, FieldPlan, State, plan_fields
from cellvim.ingest.problems import (
    describe_fewer_fields,
    describe_problems,
    describe_repeated_stains,
    shared_images,
)
from cellvim.ingest.sources import ImagePart, SourcePlate

ALLOWED_DTYPES = ("uint8", "uint16")


@dataclass(frozen=True)
class Preflight:
    """What is there, what is wrong with it, and what will be made of it.

    Attributes:
        plate: The plate as its source describes it.
        stains: Channel key to stain, in the order of the store.
        dtype: Of most planes.
        shape: Height and width of most planes, pixels.
        planned: Every field that has at least one file, as it is.
        fields: Fields to be written; a channel with a problem will be filled.
        skipped: Well or field to the reason why it will not be written.
        problems: One line each, worst first.
        notes: Oddities that do no harm, the source's and those found here.
        size_bytes: Size of all files to be read.
    """

    plate: SourcePlate
    stains: Mapping[str, str]
    dtype: np.dtype[np.unsignedinteger]
    shape: tuple[int, int]
    planned: tuple[FieldPlan, ...]
    fields: tuple[FieldPlan, ...]
    skipped: Mapping[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    size_bytes: int

    @property
    def wells(self) -> set[str]:
        """Every well that the plate names, written or not."""
        return {plan.key.well for plan in self.fields} | {unit.partition("/")[0] for unit in self.skipped}

    @property
    def file_count(self) -> int:
        """Images that the plate names, be they there or not."""
        return sum(len(part.images) for plan in self.planned for part in plan.channels)

    def count_planes(self) -> dict[State, int]:
        """How many channels of fields are in each state."""
        counts = Counter(part.state for plan in self.planned for part in plan.channels)
        return {state: counts[state] for state in STATES}

    def refuse_empty(self) -> None:
        """Stop where nothing would be left of the plate.

        Raises:
            InputError: No field is usable.
        """
        if not self.fields:
            found = f"plate {self.plate.name}: none of its {len(self.planned)} fields is usable; {self.problems[0]}"
            raise InputError(found, hint="see all problems with --dry-run --json")


def check_plate(plate: SourcePlate, settings: IngestSettings) -> Preflight:
    """Check all files of a plate, without reading pixels.

    Raises:
        InputError: Nothing usable, or a setting that does not fit the plate.
    """
    plate = drop_channels(plate, settings.drop_channels)
    plans = plan_fields(plate, settings)
    keys = [part.channel for part in plans[0].channels]
    stains = name_channels(keys, plate.stains, settings.channels)
    images = (image for plan in plans for part in plan.channels for image in part.images)
    headers = read_headers(images, label=f"check {plate.name}", workers=settings.workers)
    dtype, shape = _usual(plate, headers)
    inspection = _Inspection(headers, shared_images(plans), dtype, shape)
    checked = tuple(_check_field(plan, inspection) for plan in plans)
    kept, skipped = sort_out(checked, stains, on_missing=settings.on_missing)
    return Preflight(
        plate=plate,
        stains=stains,
        dtype=np.dtype(dtype),
        shape=shape,
        planned=checked,
        fields=tuple(kept),
        skipped=skipped | _wells_without_images(plate, plans),
        problems=tuple(describe_problems(checked, stains)),
        notes=(
            *plate.notes,
            *describe_repeated_stains(keys, plate.stains, stains),
            *describe_fewer_fields(plans),
            *(
                f"{stains[part.channel]}: the instrument's projection is taken"
                for part in plans[0].channels
                if part.is_projected
            ),
        ),
        size_bytes=sum(header.size_bytes for header in headers.values() if isinstance(header, Header)),
    )


def sort_out(
    plans: Sequence[FieldPlan], stains: Mapping[str, str], *, on_missing: str
) -> tuple[list[FieldPlan], dict[str, str]]:
    """Divide checked fields into those to be written and those to be left out, and say why."""
    kept, skipped = [], {}
    for plan in plans:
        bad = [part for part in plan.channels if part.problem]
        if not bad or (on_missing == "fill" and len(bad) < len(plan.channels)):
            kept.append(replace(plan, channels=tuple(map(_without_files, plan.channels))) if bad else plan)
        else:
            skipped[str(plan.key)] = f"{stains[bad[0].channel]} {bad[0].problem}"
    return kept, skipped


def _without_files(part: ChannelPlan) -> ChannelPlan:
    return replace(part, images=(), depths=()) if part.problem else part


@dataclass(frozen=True)
class _Inspection:
    """What images are held against.

    Attributes:
        shared: Images that several planes name, and who does.
    """

    headers: Mapping[ImagePart, Finding]
    shared: Mapping[ImagePart, str]
    dtype: str
    shape: tuple[int, int]


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


def _check_field(plan: FieldPlan, inspection: _Inspection) -> FieldPlan:
    checked = tuple(_check_channel(part, inspection) for part in plan.channels)
    return (
        plan
        if all(new is old for new, old in zip(checked, plan.channels, strict=True))
        else replace(plan, channels=checked)
    )


def _check_channel(part: ChannelPlan, inspection: _Inspection) -> ChannelPlan:
    """Judge a channel by the headers of its images; damage weighs more than what the plan knew already."""
    if part.problem and part.state != "missing":
        return part
    for image in part.images:
        state, problem = _judge(image, inspection)
        if problem and (not part.problem or state == "damaged"):
            return replace(part, problem=problem, state=state)
    return part


def _judge(image: ImagePart, inspection: _Inspection) -> tuple[State, str | None]:
    header, dtype, shape = inspection.headers[image], inspection.dtype, inspection.shape
    if isinstance(header, str):
        return "missing" if header == NOT_THERE else "damaged", f"{image.name} {header}"
    if header.dtype != dtype:
        return "odd", f"{image.name} holds {header.dtype}, the other planes {dtype}"
    if (header.height, header.width) != shape:
        found = f"{image.name} is {header.width} x {header.height} pixels"
        return "odd", f"{found}, the others {shape[1]} x {shape[0]}"
    if image in inspection.shared:
        return "doubled", f"{image.name} is named by several planes: {inspection.shared[image]}"
    return "complete", None


def _wells_without_images(plate: SourcePlate, plans: Sequence[FieldPlan]) -> dict[str, str]:
    present = {plan.key.well for plan in plans}
    return {
        well: "named by the source's plan, but has no images"
        for well in plate.declared_wells
        if well not in present
    }
