"""What goes into a table: which plates, whether they can share one, and whether the model can be shown them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellvim.config import EmbedSettings
from cellvim.errors import InputError
from cellvim.model import ChannelEncoder, ModelCard
from cellvim.store import PlateReader, find_plates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlateFacts:
    """What a run bears in mind of each plate: a few hundred bytes, where an open plate takes megabytes.

    Attributes:
        address: Path or URL.
        name: Name of the plate.
        file_name: Last part of the address.
        fingerprint: Hash of all that embedding may use of it.
        channels: Stains.
        wells: Number of wells, with those that ingest had to skip.
        fields: Number of fields.
    """

    address: Path | str
    name: str
    file_name: str
    fingerprint: str
    channels: tuple[str, ...]
    wells: int
    fields: int


def list_plates(settings: EmbedSettings) -> list[PlateFacts]:
    """Look at each plate, and refuse combinations that cannot share a table.

    Raises:
        NotFoundError: A path holds no plate.
        InputError: Plates of one name, or with different channels where features are kept per channel.
    """
    plates = [_look_at(address) for address in find_plates(settings.plates)]
    names = [plate.name for plate in plates]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        found = f"{len(names)} plates, but two are named {doubled[0]}: their wells could not be told apart"
        raise InputError(found, hint="ingest one of them again under another name with --plate")
    first = plates[0]
    for plate in plates[1:]:
        keeps_channels = settings.pool == "channel" or settings.has_intensity
        if keeps_channels and plate.channels != first.channels:
            found = (
                f"plate {plate.name} has channels {', '.join(plate.channels)}, "
                f"{first.name} has {', '.join(first.channels)}: per-channel features would not line up"
            )
            hint = "pass --pool all without --intensity, or embed them into separate tables"
            raise InputError(found, hint=hint)
    return plates


def find_unknown_stains(plates: Sequence[PlateFacts], encoder: ChannelEncoder, card: ModelCard) -> list[str]:
    """Stains of the plates that the model has no row for; a warning names them.

    Raises:
        InputError: The model cannot be shown such stains.
    """
    for plate in plates:
        encoder.arrange(plate.channels)
    unknown = list(dict.fromkeys(name for plate in plates for name in encoder.unmatched(plate.channels)))
    if unknown:
        knows = f"the model knows {', '.join(card.channels)}"
        if not card.is_unknown_trained:
            found = f"{knows}, and never learned what any other stain is like: {', '.join(unknown)}"
            raise InputError(found, hint="if only the names differ, ingest again with --channels")
        logger.warning("%s; all others go by one name, `unknown`: %s", knows, ", ".join(unknown))
    return unknown


def _look_at(address: Path | str) -> PlateFacts:
    plate = PlateReader(address)
    return PlateFacts(
        address=address,
        name=plate.name,
        file_name=plate.place.name,
        fingerprint=plate.fingerprint,
        channels=plate.channels,
        wells=len({*plate.wells, *plate.skipped}),
        fields=len(plate.fields),
    )
