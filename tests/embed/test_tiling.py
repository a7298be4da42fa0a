"""Laws of tiling: every pixel is covered, no tile hangs over the border."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellvim.embed.tiling import tile_origins, tiles


@given(length=st.integers(1, 3000), tile=st.integers(1, 600))
def test_tiles_cover_every_pixel_and_stay_inside(length: int, tile: int) -> None:
    origins = tile_origins(length, tile)
    covered = np.zeros(length, bool)
    for origin in origins:
        assert origin >= 0
        assert origin + min(tile, length) <= length
        covered[origin : origin + tile] = True
    assert covered.all()
    assert len(origins) == max(1, -(-length // tile))
    assert origins == sorted(set(origins))


def test_tiles_go_row_by_row() -> None:
    assert list(tiles(200, 100, 100)) == [(0, 0), (100, 0)]
