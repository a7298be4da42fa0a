"""One forward pass gives a table per block; batches run across fields and change nothing."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellvim.config import EmbedSettings
from cellvim.embed.blocks import block_path, chosen_blocks, feature_names, table_of_block
from cellvim.embed.cutting import Cut
from cellvim.embed.encode import batches, delayed
from cellvim.embed.fields import TiledField
from cellvim.errors import UsageError
from cellvim.model.encoder import ChannelEncoder
from cellvim.store import FieldKey

WIDTH = 16
CLOSE = 1e-5
"""Another batch is another order of sums in float32."""


def features_of(table: pl.DataFrame) -> np.ndarray:
    return table.select(pl.selectors.starts_with("emb_")).to_numpy()


@pytest.mark.parametrize("level", ["well", "crop"])
@pytest.mark.parametrize("pool", ["channel", "all"])
def test_each_block_has_the_table_that_it_has_alone(
    make_plate: Any, embed_one: Any, level: str, pool: str
) -> None:
    plate = make_plate(wells=("A01", "A02"), invalid=(("A01", 1, 0),))
    settings = {"level": level, "pool": pool, "has_intensity": pool == "channel"}
    together = embed_one(plate, each_layer=True, **settings)
    for block in (0, 1):
        alone = embed_one(plate, layers=(block,), **settings)
        table = table_of_block(together.table, block)
        assert table.columns == alone.table.columns
        assert table.drop(pl.selectors.starts_with("emb_")).equals(
            alone.table.drop(pl.selectors.starts_with("emb_"))
        )
        np.testing.assert_allclose(features_of(table), features_of(alone.table), atol=CLOSE)
    assert together.left_out == alone.left_out
    first, second = (features_of(table_of_block(together.table, block)) for block in (0, 1))
    assert np.abs(first - second).max() > 100 * CLOSE


def test_blocks_in_one_table_stand_side_by_side_within_each_channel(make_plate: Any, embed_one: Any) -> None:
    plate = make_plate(wells=("A01",), sites=1)
    joined = features_of(embed_one(plate, layers=(1, 0)).table).reshape(1, 3, 2, WIDTH)
    for place, block in enumerate((1, 0)):
        alone = features_of(embed_one(plate, layers=(block,)).table).reshape(1, 3, WIDTH)
        np.testing.assert_allclose(joined[:, :, place], alone, atol=CLOSE)


def test_all_blocks_take_one_forward_pass_per_batch(
    make_plate: Any, embed_one: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    features = ChannelEncoder.features

    def counted(self: ChannelEncoder, image: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(image))
        return inspect.unwrap(features)(self, image, *args, **kwargs)

    monkeypatch.setattr(ChannelEncoder, "features", counted)
    # 3 fields of 4 tiles.
    embed_one(make_plate(wells=("A01", "A02", "A03"), sites=1), each_layer=True, batch_size=5)
    assert sizes == [5, 5, 2]


def test_names_say_which_block(make_plate: Any, embed_one: Any) -> None:
    table = embed_one(make_plate(wells=("A01",), sites=1), each_layer=True, layers=(1,)).table
    features = [name for name in table.columns if not name.startswith("Metadata_")]
    assert features == feature_names(3 * WIDTH, (1,))
    assert features[0] == "block01_emb_0000"
    assert all(name.startswith("Metadata_") for name in table_of_block(table, 0).columns)
    assert block_path(Path("x/e.v1.parquet"), 3) == Path("x/e.v1.block03.parquet")


def test_every_block_is_meant_if_none_is_named() -> None:
    base = {"plates": ["p"], "model": "m", "out": "o.parquet"}
    for content, expected in (
        ({}, ()),
        ({"layers": (2, 4)}, ()),
        ({"each_layer": True}, (0, 1, 2)),
        ({"each_layer": True, "layers": (2, 0)}, (2, 0)),
    ):
        assert chosen_blocks(EmbedSettings.checked({**base, **content}), 3) == expected
    with pytest.raises(UsageError, match="a block is named twice"):
        EmbedSettings.checked({**base, "layers": (1, 1)})


def test_a_block_that_is_not_there_is_refused(make_plate: Any, embed_one: Any) -> None:
    with pytest.raises(UsageError, match="blocks 0 to 1"):
        embed_one(make_plate(wells=("A01",), sites=1), each_layer=True, layers=(2,))


@pytest.mark.parametrize("level", ["well", "crop"])
def test_the_size_of_a_batch_changes_no_row(make_plate: Any, embed_one: Any, level: str) -> None:
    # Fields of two kinds, so that batches must break between them.
    plate = make_plate(sites=2, invalid=(("A01", 2, 0), ("B01", 1, 1)))
    expected = embed_one(plate, level=level, batch_size=16)
    for size in (1, 3, 100):
        found = embed_one(plate, level=level, batch_size=size, readers=1 + size % 3)
        assert found.table.drop(pl.selectors.starts_with("emb_")).equals(
            expected.table.drop(pl.selectors.starts_with("emb_"))
        )
        np.testing.assert_allclose(features_of(found.table), features_of(expected.table), atol=CLOSE)
        assert found.left_out == expected.left_out
        assert found.thumbnails.equals(expected.thumbnails)


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_overlapping_tiles_are_the_crops_of_the_field(
    make_plate: Any, embed_one: Any, overlap: float
) -> None:
    plate = make_plate(wells=("A01",), sites=1, side_px=64)
    crops = embed_one(plate, level="crop", overlap=overlap).table
    corners = crops.select("Metadata_CropTop", "Metadata_CropLeft").rows()
    places = (0, 32) if overlap == 0 else (0, 16, 32)
    assert corners == [(top, left) for top in places for left in places]
    well = embed_one(plate, overlap=overlap).table
    np.testing.assert_allclose(features_of(well)[0], features_of(crops).mean(0), atol=CLOSE)


def field_of(tiles: int, *, side_px: int = 8, is_valid: bool = True) -> TiledField:
    cut = Cut([(0, index) for index in range(tiles)], {})
    pixels = np.zeros((1, side_px, side_px), np.float32)
    return TiledField(FieldKey("A01", 1), np.array([True, is_valid]), pixels, np.zeros(1, np.float32), cut, 8)


@given(
    kinds=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([4, 8]), st.booleans()), max_size=8),
    size=st.integers(1, 7),
)
def test_batches_hold_every_tile_once_in_order_and_are_full(
    kinds: list[tuple[int, int, bool]], size: int
) -> None:
    fields = [field_of(count, side_px=side, is_valid=valid) for count, side, valid in kinds]
    found = list(batches(fields, size))
    seen = [(id(p.tiled), index) for batch in found for p in batch for index in range(p.start, p.stop)]
    assert seen == [(id(f), index) for f in fields for index in range(len(f.cut.corners))]
    lasts = [p.is_last for batch in found for p in batch]
    assert sum(lasts) == len(fields)
    shapes = [{(p.tiled.tile_shape, bool(p.tiled.is_valid.all())) for p in batch} for batch in found]
    assert all(len(shape) == 1 for shape in shapes)
    for index, batch in enumerate(found):
        tiles = sum(p.stop - p.start for p in batch)
        is_end = index + 1 == len(found) or shapes[index] != shapes[index + 1]
        assert tiles <= size if is_end else tiles == size


@given(st.lists(st.integers()), st.integers(0, 4))
def test_delayed_items_are_the_same_items_and_later_ones_are_taken_first(items: list[int], by: int) -> None:
    taken = 0

    def source() -> Any:
        nonlocal taken
        for item in items:
            taken += 1
            yield item

    found = []
    for item in delayed(source(), by=by):
        found.append(item)
        assert taken == min(len(items), len(found) + by)
    assert found == items
