"""Laws of tiling: every pixel is covered, no tile hangs over the border, neighbours overlap as asked."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellvim.embed.tiling import tile_origins, tiles

lengths, sides = st.integers(1, 3000), st.integers(1, 600)
overlaps = st.floats(0, 0.9)


@given(length=lengths, tile=sides, overlap=overlaps)
def test_tiles_cover_every_pixel_and_stay_inside(length: int, tile: int, overlap: float) -> None:
    origins = tile_origins(length, tile, overlap)
    covered = np.zeros(length, bool)
    for origin in origins:
        assert origin >= 0
        assert origin + min(tile, length) <= length
        covered[origin : origin + tile] = True
    assert covered.all()
    assert origins == sorted(set(origins))


@given(length=lengths, tile=sides)
def test_without_overlap_tiles_are_as_few_as_cover(length: int, tile: int) -> None:
    assert len(tile_origins(length, tile)) == max(1, -(-length // tile))


@given(length=lengths, tile=sides, overlap=overlaps)
def test_neighbours_overlap_at_least_as_asked_and_evenly(length: int, tile: int, overlap: float) -> None:
    steps = np.diff(tile_origins(length, tile, overlap))
    furthest = max(1, tile - math.ceil(overlap * tile - 1e-6))
    assert (steps <= furthest).all()
    assert steps.size == 0 or np.ptp(steps) <= 1
    # One tile fewer could not do it.
    assert steps.size == 0 or (steps.size - 1) * furthest < max(0, length - tile)


@given(length=lengths, tile=sides, overlap=overlaps)
def test_more_overlap_never_takes_fewer_tiles(length: int, tile: int, overlap: float) -> None:
    assert len(tile_origins(length, tile, overlap)) >= len(tile_origins(length, tile, overlap / 2))


def test_a_quarter_of_a_tile() -> None:
    assert tile_origins(1080, 224) == [0, 214, 428, 642, 856]
    assert tile_origins(1080, 224, 0.25) == [0, 143, 285, 428, 571, 713, 856]


def test_tiles_go_row_by_row() -> None:
    assert list(tiles(200, 100, 100)) == [(0, 0), (100, 0)]
    assert list(tiles(150, 150, 100, 0.5)) == [(0, 0), (0, 50), (50, 0), (50, 50)]
