"""SHA-256 of bytes, files and JSON-able values."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Hash of a JSON-able value that does not depend on key order."""
    return sha256_of(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
