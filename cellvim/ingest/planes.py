"""Choose the planes that make a field: one time point, and for each channel one stack or one projection."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cellvim.config import IngestSettings
from cellvim.errors import InputError
from cellvim.ingest.sources import ImagePart, Plane, SourcePlate, natural, some
from cellvim.store import FieldKey, well_position

# The most that cyclic staining has reached are about a hundred; a wrong pattern makes one of every file.
MOST_CHANNELS = 256

NO_SUCH_Z = "has no plane at the z asked for"

State = Literal["complete", "missing", "odd", "doubled", "damaged"]
STATES: tuple[State, ...] = ("complete", "missing", "odd", "doubled", "damaged")
"""How a channel of a field is, from best to worst. Odd: of other size or data type than most of the plate."""


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """The images behind one channel of one field.

    Attributes:
        channel: The source's key.
        images: In order of z; to be projected if there are several.
        problem: Why the channel cannot be used, for example a missing plane; None if it can.
        state: What kind of problem it is; ``complete`` if there is none.
        depths: The source's number of the z plane of each image; None where it does not count them.
        is_projected: The instrument's own projection is taken, as too little of the stack is there.
    """

    channel: str
    images: tuple[ImagePart, ...]
    problem: str | None = None
    state: State = "complete"
    depths: tuple[int | None, ...] = ()
    is_projected: bool = False


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """One field to be: a plan for each channel of the plate, in the order of the keys."""

    key: FieldKey
    channels: tuple[ChannelPlan, ...]

    @property
    def state(self) -> State:
        """That of its worst channel."""
        return max((part.state for part in self.channels), key=STATES.index)


def plan_fields(plate: SourcePlate, settings: IngestSettings) -> list[FieldPlan]:
    """Choose the files of every field.

    A field lacks whatever any other field of the plate has: a channel, or a z plane of a channel. A plane that
    the source lists twice, from one and the same file, counts once.

    Raises:
        InputError: Several time points and none chosen, a time point or z plane that is not there, or more
            channels than any microscope has.
    """
    planes = _at_timepoint(plate, settings.timepoint)
    fields: dict[FieldKey, dict[str, list[Plane]]] = defaultdict(lambda: defaultdict(list))
    for plane in planes:
        fields[plane.field][plane.channel].append(plane)
    channels = sorted({plane.channel for plane in planes}, key=natural)
    if len(channels) > MOST_CHANNELS:
        found = f"plate {plate.name} has {len(channels):,} channels: {some(channels)}"
        raise InputError(
            found, hint="check what {channel} catches in the pattern, or the source's channel column"
        )
    wanted = {channel: _wanted_z(planes, channel, settings) for channel in channels}
    if not any(wanted.values()):
        found = f"plate {plate.name}: no channel has z plane {settings.z} (there are {_numbers(planes)})"
        raise InputError(found, hint="choose one of them with --z, or max")
    return [
        FieldPlan(
            key,
            tuple(_plan_channel(channel, found.get(channel, ()), wanted[channel]) for channel in channels),
        )
        for key, found in sorted(fields.items(), key=lambda pair: _position(pair[0]))
    ]


def _position(key: FieldKey) -> tuple[int, int, int]:
    return (*well_position(key.well), key.site)


# A plane's place in depth: its z number, or one of these.
_FLAT, _PROJECTION = "the plane", "the projection"
Depth = int | str


def _at_timepoint(plate: SourcePlate, timepoint: int | None) -> list[Plane]:
    times = sorted({plane.t for plane in plate.planes if plane.t is not None})
    if timepoint is None:
        if len(times) > 1:
            found = f"plate {plate.name} has {len(times)} time points: {', '.join(map(str, times))}"
            raise InputError(found, hint="choose one with --timepoint")
        return list(plate.planes)
    chosen = [plane for plane in plate.planes if plane.t in (None, timepoint)]
    if timepoint not in times and times:
        found = f"plate {plate.name} has no time point {timepoint}, only {', '.join(map(str, times))}"
        raise InputError(found, hint="choose one of them with --timepoint")
    return chosen


def _wanted_z(planes: Iterable[Plane], channel: str, settings: IngestSettings) -> tuple[Depth, ...]:
    """Depths that every field must have in this channel.

    A stack of two or more planes is projected here, so that all plates are treated alike. The instrument's
    own projection is used where it is all there is of a stack, and never mixed with planes.
    """
    found = {_depth(plane) for plane in planes if plane.channel == channel}
    stack = tuple(sorted(depth for depth in found if isinstance(depth, int)))
    if isinstance(settings.z, int):
        return (settings.z,) if settings.z in stack else ()
    if _FLAT in found:
        return (_FLAT,)
    fewest = {"max": 2, "focus": 1}.get(settings.z, 0)
    if len(stack) < fewest and _PROJECTION in found:
        return (_PROJECTION,)
    return stack


def _depth(plane: Plane) -> Depth:
    if plane.is_projection:
        return _PROJECTION
    return _FLAT if plane.z is None else plane.z


def _plan_channel(channel: str, planes: Sequence[Plane], wanted: Sequence[Depth]) -> ChannelPlan:
    # A dict, as an ordered set: what the source lists twice counts once.
    by_depth: dict[Depth, dict[ImagePart, None]] = defaultdict(dict)
    for plane in planes:
        by_depth[_depth(plane)][plane.image] = None
    if not wanted:
        return ChannelPlan(channel, (), NO_SUCH_Z, "missing")
    pairs = [(image, depth) for depth in wanted for image in by_depth[depth]]
    plan = ChannelPlan(
        channel,
        images=tuple(image for image, _ in pairs),
        depths=tuple(depth if isinstance(depth, int) else None for _, depth in pairs),
        is_projected=tuple(wanted) == (_PROJECTION,),
    )
    missing = [depth for depth in wanted if not by_depth[depth]]
    if missing:
        which = "" if missing == [_FLAT] or len(wanted) == 1 else f" z {_listed(missing)}"
        return replace(plan, problem=f"is missing{which}", state="missing")
    doubled = next((by_depth[depth] for depth in wanted if len(by_depth[depth]) > 1), None)
    if doubled:
        names = some(_distinct_names(list(doubled)), 4)
        return replace(plan, problem=f"has {len(doubled)} files for one plane: {names}", state="doubled")
    return plan


def _distinct_names(images: Sequence[ImagePart]) -> list[str]:
    if len({image.name for image in images}) == len(images):
        return [image.name for image in images]
    return [f"{image.path.parent.name}/{image.name}" for image in images]


def _listed(depths: Sequence[Depth]) -> str:
    return ", ".join(map(str, depths))


def _numbers(planes: Iterable[Plane]) -> str:
    numbers = sorted({plane.z for plane in planes if plane.z is not None})
    return _listed(numbers) if numbers else "no numbered z planes"
