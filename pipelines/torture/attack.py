"""Files to put into a plate before it is ingested."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One way to damage a plate.

    Attributes:
        victim: Name of the plate.
        kind: Of the damaged file, or of the attack.
        damage: What is done, in words.
        files: Name relative to the victim's folder, to content; None where a file is to be missing.
        most_seconds: Time within which a dry run and an ingest must be over.
    """

    victim: str
    kind: str
    damage: str
    files: Mapping[str, bytes | None]
    most_seconds: float = 5.0
