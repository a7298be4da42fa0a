"""Cut a field into tiles that cover all of it."""

import math
from collections.abc import Iterator


def tile_origins(length_px: int, tile_px: int, overlap: float = 0.0) -> list[int]:
    """First pixel of each tile along one axis: evenly spread, first at 0, last flush with the border.

    As few tiles as the overlap allows; every pixel is covered. An axis shorter than the tile gives one tile of
    its own length.

    Args:
        length_px: Of the axis.
        tile_px: Side of a tile.
        overlap: Share of the tile by which neighbours overlap at least, in [0, 1). Tiles are always at least a
            pixel apart.
    """
    if length_px <= tile_px:
        return [0]
    # Rounded first, as 0.07 * 100 is a little more than 7.
    furthest = max(1, tile_px - math.ceil(round(overlap * tile_px, 6)))
    slack = length_px - tile_px
    steps = -(-slack // furthest)
    return [round(index * slack / steps) for index in range(steps + 1)]


def tiles(height_px: int, width_px: int, tile_px: int, overlap: float = 0.0) -> Iterator[tuple[int, int]]:
    """Top-left corner of every tile of a field, row by row."""
    for top in tile_origins(height_px, tile_px, overlap):
        for left in tile_origins(width_px, tile_px, overlap):
            yield top, left
