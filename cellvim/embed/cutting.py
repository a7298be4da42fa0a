"""Where to cut a field: into tiles that cover it, or into crops around the objects of its label image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy import ndarray

from cellvim.config import EmbedSettings
from cellvim.embed.content import background_levels, is_bright, shares
from cellvim.embed.masks import LabelImages, masks_sha256
from cellvim.embed.objects import Objects, find_objects
from cellvim.embed.tiling import tiles
from cellvim.store import FieldKey, PlateReader

ROW_PER_TILE = ("crop", "object")
"""Levels at which each tile is a row of its own."""


@dataclass(frozen=True)
class Cut:
    """Tiles of one field.

    Args:
        corners: Top-left corner of each tile.
        columns: What the table says of each tile where tiles are its rows.
        content: Share of the field's tiles, dropped ones too, that shows something; None if nobody asked.
        has_content: False if no tile shows enough, so that all were kept.
        counts: Of tiles or objects that were dropped or do not fit, by what they are, and of fields that show none.
        labels: Label image, if the pixels around an object are not to be shown.
    """

    corners: list[tuple[int, int]]
    columns: dict[str, Shaped[ndarray, " tile"]]
    content: float | None = None
    has_content: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    labels: Int[ndarray, "y x"] | None = None

    @property
    def is_of_objects(self) -> bool:
        return "objects" in self.counts


@dataclass(frozen=True)
class Cutting:
    """How the fields of a plate are cut.

    Args:
        tile_px: Side of a tile; smaller fields are one tile.
        overlap: See `tile_origins`.
        min_content: Tiles with less content are dropped, unless no tile of the field has as much.
        labels: Label images of the plate; crops around their objects replace the tiles.
        object_background: Whether the pixels around an object are shown.
    """

    tile_px: int
    overlap: float = 0.0
    min_content: float = 0.0
    labels: LabelImages | None = None
    object_background: Literal["keep", "zero"] = "keep"

    @classmethod
    def of_plate(cls, plate: PlateReader, settings: EmbedSettings, tile_px: int) -> "Cutting":
        """Take the settings, and find the label images of a plate.

        Raises:
            InputError: There are none, or two of one field.
        """
        labels = None if settings.masks is None else LabelImages.of_plate(settings.masks, plate.name)
        return cls(tile_px, settings.overlap, settings.min_content, labels, settings.object_background)

    def cut(
        self,
        plate: PlateReader,
        key: FieldKey,
        pixels: Shaped[ndarray, "c y x"],
        is_valid: Bool[ndarray, " c"],
    ) -> Cut:
        """Choose the tiles of a field; there are none where its label image has no whole object.

        Args:
            plate: Its plate.
            key: Which field.
            pixels: The field, raw counts.
            is_valid: Channels that are looked at for content.

        Raises:
            InputError: Its label image is missing or unusable.
        """
        if self.labels is not None:
            return self._around_objects(self.labels.read(key, plate.shape(key)))
        height, width = pixels.shape[1:]
        corners = list(tiles(height, width, self.tile_px, self.overlap))
        if not self.min_content:
            return Cut(corners, _crop_columns(corners))
        bright = is_bright(pixels, background_levels(plate.intensity, plate.channels), is_valid)
        return self._with_content(corners, shares(bright, corners, self.tile_px))

    def _with_content(self, corners: list[tuple[int, int]], content: Shaped[ndarray, " tile"]) -> Cut:
        is_kept = content >= self.min_content
        has_content = bool(is_kept.any())
        if not has_content:
            is_kept = np.ones_like(is_kept)
        kept = [corner for corner, keeps in zip(corners, is_kept, strict=True) if keeps]
        return Cut(
            kept,
            {**_crop_columns(kept), "Metadata_ContentFraction": content[is_kept]},
            content=float(content.mean()),
            has_content=has_content,
            counts={
                "tiles": len(corners),
                "tiles_dropped": len(corners) - len(kept),
                "fields_without_content": int(not has_content),
            },
        )

    def _around_objects(self, labels: Int[ndarray, "y x"]) -> Cut:
        height, width = labels.shape
        found = find_objects(labels)
        whole = found.only(~found.touches_border(height, width))
        return Cut(
            whole.corners(height, width, self.tile_px),
            _object_columns(whole),
            counts={
                "objects": len(found),
                "objects_at_edge": len(found) - len(whole),
                "objects_larger_than_tile": int(whole.is_larger_than(self.tile_px).sum()),
                "fields_without_object": int(not len(whole)),
            },
            labels=labels if self.object_background == "zero" else None,
        )


def describe(settings: EmbedSettings, plate_names: Sequence[str]) -> dict[str, Any]:
    """What a table says about how its fields were cut; what tables must share to be mixed.

    The label images go by their content, so that moving their folder changes nothing.

    Raises:
        InputError: A plate has no label images, or several plates would share those of one.
    """
    about: dict[str, Any] = {"overlap": settings.overlap, "min_content": settings.min_content}
    if settings.masks is not None:
        about["masks_sha256"] = masks_sha256(settings.masks, plate_names)
        about["object_background"] = settings.object_background
    return about


def _crop_columns(corners: list[tuple[int, int]]) -> dict[str, Shaped[ndarray, " tile"]]:
    tops, lefts = np.array(corners, np.int64).reshape(-1, 2).T
    return {"Metadata_CropTop": tops, "Metadata_CropLeft": lefts}


def _object_columns(objects: Objects) -> dict[str, Shaped[ndarray, " tile"]]:
    return {
        "Metadata_ObjectNumber": objects.numbers,
        "Metadata_ObjectTop": objects.boxes[:, 0],
        "Metadata_ObjectLeft": objects.boxes[:, 1],
        "Metadata_ObjectAreaPx": objects.areas,
    }
