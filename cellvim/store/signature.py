"""JSON files that carry their own checksum: those that no list of checksums can hold, as they change every time."""

import json
from collections.abc import Mapping
from typing import Any

from cellvim.atomic import json_bytes
from cellvim.provenance import sha256_of_json

RUN_FILE = "run.json"
_SIGNATURE = "sha256"


def signed(content: Mapping[str, Any]) -> bytes:
    """Spell a JSON object with the sha256 of the rest of it inside."""
    return json_bytes({**content, _SIGNATURE: sha256_of_json(content)})


def is_as_signed(stored: bytes) -> bool:
    """Whether these are the bytes that `signed` made, to the last bit."""
    try:
        content = json.loads(stored)
        signature = content.pop(_SIGNATURE)
        # Spelt again, as 1e-5 and 1E-5 are one number and two spellings.
        return sha256_of_json(content) == signature and signed(content) == stored
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return False
