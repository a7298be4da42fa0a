"""One field, ready for the encoder: read, normalised, and cut."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray

from cellvim.dataset import normalize_pixels
from cellvim.embed.cutting import Cut, Cutting
from cellvim.embed.thumbnail import THUMBNAIL_PX, compose_thumbnail
from cellvim.errors import InputError
from cellvim.store import FieldKey, PlateReader


@dataclass(frozen=True)
class TiledField:
    """A normalised field, and where its tiles lie. Tiles are cut late: they may overlap, and objects be many.

    Args:
        key: Which field.
        is_valid: Which channels of the plate are.
        pixels: Valid channels only.
        dark: What pixels around an object become if they are not shown: raw 0, normalised.
        cut: Its tiles.
        tile_px: Side of a tile; a field that is smaller is one tile.
        thumbnail: PNG; empty if it was not asked for.
        error: Why the field cannot be used; it then has no tiles.
    """

    key: FieldKey
    is_valid: Bool[ndarray, " c"]
    pixels: Float32[ndarray, "valid y x"]
    dark: Float32[ndarray, " valid"]
    cut: Cut
    tile_px: int
    thumbnail: bytes = b""
    error: str | None = None

    @property
    def tile_shape(self) -> tuple[int, int]:
        """Height and width of its tiles."""
        height, width = self.pixels.shape[1:]
        return min(self.tile_px, height), min(self.tile_px, width)

    @property
    def tiles(self) -> Float32[ndarray, "tile valid y x"]:
        """All tiles at once, objects with what lies around them."""
        height, width = self.tile_shape
        parts = [self.pixels[:, top : top + height, left : left + width] for top, left in self.cut.corners]
        return np.stack(parts) if parts else np.zeros((0, 0, height, width), np.float32)


def tile_field(
    plate: PlateReader, key: FieldKey, cutting: Cutting, *, needs_all: bool, is_pictured: bool = False
) -> TiledField:
    """Read a field, normalise it and cut it; a field that cannot be used carries the reason instead.

    Args:
        plate: Plate to read.
        key: Field of the plate.
        cutting: How to cut it.
        needs_all: Whether the model can do without none of the channels.
        is_pictured: Whether to compose a thumbnail.
    """
    is_valid = plate.is_valid(key)
    try:
        raw = plate.read_field(key)
        _require_usable(is_valid, needs_all=needs_all)
        cut = cutting.cut(plate, key, raw, is_valid)
    except InputError as unusable:
        nothing = np.zeros((0, 0, 0), np.float32)
        dark = np.zeros(0, np.float32)
        return TiledField(key, is_valid, nothing, dark, Cut([], {}), cutting.tile_px, error=unusable.found)
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    moments = plate.intensity.moments(key)
    pixels = normalize_pixels(raw, bounds, moments)[is_valid]
    dark = normalize_pixels(np.zeros((len(raw), 1, 1), raw.dtype), bounds, moments)[is_valid, 0, 0]
    thumbnail = picture_field(plate, key, raw) if is_pictured else b""
    return TiledField(key, is_valid, pixels, dark, cut, cutting.tile_px, thumbnail)


def picture_field(plate: PlateReader, key: FieldKey, raw: ndarray | None = None) -> bytes:
    """Compose the thumbnail of a field; planes that were filled at ingest are not shown.

    Args:
        plate: Plate to read.
        key: Field of the plate.
        raw: Its pixels, if they have been read already.
    """
    pixels = plate.read_field(key) if raw is None else raw
    shown = np.where(plate.is_valid(key)[:, None, None], pixels, 0)
    return compose_thumbnail(shown, plate, THUMBNAIL_PX)


def _require_usable(is_valid: Bool[ndarray, " c"], *, needs_all: bool) -> None:
    if not is_valid.any():
        found = "none of its planes is valid"
        raise InputError(found, hint="`cellvim info` lists what is missing")
    if needs_all and not is_valid.all():
        found = "a plane is not valid, and the model needs all channels together"
        raise InputError(found, hint="`cellvim info` lists what is missing")
