"""Put into words what is wrong with the fields of a plate, and what is merely odd."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from cellvim.ingest.channels import given_stain
from cellvim.ingest.planes import NO_SUCH_Z, STATES, ChannelPlan, FieldPlan
from cellvim.ingest.sources import ImagePart, some
from cellvim.store import FieldKey


def describe_problems(plans: Sequence[FieldPlan], stains: Mapping[str, str]) -> list[str]:
    """Say what is wrong, worst first: damaged planes before missing ones, which are often known.

    A channel that most fields lack is named once, and so is one that a well lacks in all its fields.
    """
    found: list[tuple[int, str]] = []
    rare = _rare_channels(plans)
    found += [(STATES.index("missing"), _rare(channel, plans, stains)) for channel in rare]
    by_well: dict[str, list[FieldPlan]] = defaultdict(list)
    for plan in plans:
        by_well[plan.key.well].append(plan)
    for well, fields in by_well.items():
        found += _problems_of_well(well, fields, stains, rare)
    return [line for _, line in sorted(found, key=lambda pair: -pair[0])]


def shared_images(plans: Sequence[FieldPlan]) -> dict[ImagePart, str]:
    """Images that more than one channel or field names, and who does."""
    once: set[ImagePart] = set()
    again: set[ImagePart] = set()
    for _, _, image in _images(plans):
        (again if image in once else once).add(image)
    users: dict[ImagePart, list[str]] = defaultdict(list)
    for key, channel, image in _images(plans) if again else ():
        if image in again:
            users[image].append(f"{key} channel {channel}")
    return {image: some(names, 4) for image, names in users.items()}


def describe_fewer_fields(plans: Sequence[FieldPlan]) -> list[str]:
    """Wells with fewer fields than most: allowed, but it may mean that an acquisition broke off."""
    counts = Counter(plan.key.well for plan in plans)
    usual = Counter(counts.values()).most_common(1)[0][0]
    fewer = [f"{well} ({count})" for well, count in counts.items() if count < usual]
    return [f"{len(fewer)} well(s) have fewer than {usual} fields: {some(fewer, 6)}"] if fewer else []


def describe_repeated_stains(
    keys: Sequence[str], given: Mapping[str, str], stains: Mapping[str, str]
) -> list[str]:
    """Stains that the source gives to several channels, and what they are called instead.

    Args:
        keys: Channel keys that have images.
        given: Names that the source itself gives.
        stains: Names that the channels got.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_name[given_stain(key, given)].append(key)
    return [
        f"{len(same)} channels are named {name} by the source; they are called "
        f"{', '.join(stains[key] for key in same)} here"
        for name, same in by_name.items()
        if len(same) > 1 and any(stains[key] != name for key in same)
    ]


def _images(plans: Sequence[FieldPlan]) -> Iterator[tuple[FieldKey, str, ImagePart]]:
    return (
        (plan.key, part.channel, image) for plan in plans for part in plan.channels for image in part.images
    )


def _rare_channels(plans: Sequence[FieldPlan]) -> set[str]:
    """Channels without any image in more than half of the fields."""
    lacking = Counter(part.channel for plan in plans for part in plan.channels if _is_absent(part))
    return {channel for channel, count in lacking.items() if 2 * count > len(plans)}


def _is_absent(part: ChannelPlan) -> bool:
    return part.state == "missing" and not part.images


def _rare(channel: str, plans: Sequence[FieldPlan], stains: Mapping[str, str]) -> str:
    wells = {plan.key.well for plan in plans}
    present = [
        plan.key.well
        for plan in plans
        if any(part.channel == channel and not _is_absent(part) for part in plan.channels)
    ]
    having = list(dict.fromkeys(present))
    name = f"{channel} ({stains[channel]})" if stains[channel] != channel else channel
    counts = f"{len(having)} of {len(wells)} wells, {len(present)} of {len(plans)} fields"
    where = f"is in {counts}: {some(having, 6)}" if having else NO_SUCH_Z
    return f"channel {name} {where} (leave it out with --drop-channels {channel})"


def _problems_of_well(
    well: str, fields: Sequence[FieldPlan], stains: Mapping[str, str], rare: set[str]
) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for number, first in enumerate(fields[0].channels):
        parts = [plan.channels[number] for plan in fields]
        stain = stains[first.channel]
        if len(fields) > 1 and all(_is_absent(part) for part in parts) and first.channel not in rare:
            line = f"{well} {stain}: {first.problem} in all {len(fields)} fields of the well"
            found.append((STATES.index("missing"), line))
            continue
        found += [
            (STATES.index(part.state), f"{plan.key} {stain}: {part.problem}")
            for plan, part in zip(fields, parts, strict=True)
            if part.problem and not (first.channel in rare and _is_absent(part))
        ]
    return found
