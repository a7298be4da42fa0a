"""Cut a field into tiles that cover all of it."""

from collections.abc import Iterator


def tile_origins(length_px: int, tile_px: int) -> list[int]:
    """First pixel of each tile along one axis: evenly spread, first at 0, last flush with the border.

    Tiles overlap as little as whole tiles allow; every pixel is covered. An axis shorter than the tile gives
    one tile of its own length.
    """
    if length_px <= tile_px:
        return [0]
    count = -(-length_px // tile_px)
    slack = length_px - tile_px
    return [round(index * slack / (count - 1)) for index in range(count)]


def tiles(height_px: int, width_px: int, tile_px: int) -> Iterator[tuple[int, int]]:
    """Top-left corner of every tile of a field, row by row."""
    for top in tile_origins(height_px, tile_px):
        for left in tile_origins(width_px, tile_px):
            yield top, left
