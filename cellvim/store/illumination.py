"""The flat-field of a plate: how bright each place of the image is lit, per channel, and pixels without it."""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellvim.provenance import sha256_of
from cellvim.store.place import Place
from cellvim.store.records import damaged

ILLUMINATION_FILE = "illumination.npy"
ON_READ, BAKED = "on-read", "baked"

FlatField = NDArray[np.float32]
Pixels = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Illumination:
    """What a plate's writer is told.

    Attributes:
        flat: Axes (c, y, x), see `flatten`.
        is_baked: It is divided out of the pixels that are stored, otherwise on reading.
    """

    flat: FlatField
    is_baked: bool

    def apply(self, pixels: Pixels) -> tuple[Pixels, Pixels]:
        """Pixels to be stored, and those that readers will see."""
        seen = flatten(pixels, self.flat)
        return (seen if self.is_baked else pixels), seen

    @cached_property
    def content(self) -> bytes:
        """Of `ILLUMINATION_FILE`: a NumPy file."""
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(self.flat, dtype="<f4"), allow_pickle=False)
        return buffer.getvalue()

    @cached_property
    def record(self) -> dict[str, str]:
        """For the plate's record, and so for the token of every field."""
        use = BAKED if self.is_baked else ON_READ
        return {"use": use, "sha256": sha256_of(self.content)}


def flatten(pixels: Pixels, flat: FlatField) -> Pixels:
    """Divide by the flat-field, round to whole grey values, and keep within what the data type holds.

    Args:
        pixels: Axes (..., y, x), uint8 or uint16.
        flat: Of the same axes or fewer; 1 on average.

    Returns:
        Of the same data type. 0 stays 0, so filled planes stay as they are.
    """
    corrected = pixels / flat
    np.rint(corrected, out=corrected)
    np.minimum(corrected, np.iinfo(pixels.dtype).max, out=corrected)
    return corrected.astype(pixels.dtype)


def reads_corrected(plate_record: Any) -> bool:
    """Whether the record of a plate's settings says that its pixels are corrected on reading."""
    illumination = plate_record.get("illumination") if isinstance(plate_record, dict) else None
    return isinstance(illumination, dict) and illumination.get("use") == ON_READ


def load_flat(companion: Place, sha256: str) -> FlatField:
    """Read a plate's flat-field, axes (c, y, x).

    Args:
        companion: PLATE.cellvim.
        sha256: Of the file, as recorded.

    Raises:
        InputError: It is missing, damaged or another plate's: one wrong bit would change every image.
    """
    try:
        content = companion.read(ILLUMINATION_FILE)
        flat = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise damaged(companion, ILLUMINATION_FILE, error) from error
    if sha256_of(content) != sha256:
        raise damaged(companion, ILLUMINATION_FILE, ValueError("it differs from what was written"))
    is_usable = isinstance(flat, np.ndarray) and flat.ndim == 3 and flat.dtype == np.dtype("<f4")
    if not is_usable or not (np.isfinite(flat) & (flat > 0)).all():
        reason = ValueError("it is no flat-field")
        raise damaged(companion, ILLUMINATION_FILE, reason)
    return np.asarray(flat, dtype=np.float32)
