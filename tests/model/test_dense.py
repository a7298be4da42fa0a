"""Laws of the dense map: no seams, no dependence on how the tiles were computed, any size of field."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.errors import InputError, UsageError
from cellvim.model import ChannelEncoder, dense_tokens
from cellvim.model.channel_embed import to_patches
from cellvim.model.dense import tile_weights

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
PATCH_PX = 8


class LocalEncoder(ChannelEncoder):
    """Sees every patch on its own, so its map of a field is the same whatever the tiles are."""

    def tokens(self, image: Tensor, channels: Sequence[str], *, layer: int | None = None) -> Tensor:
        assert image.shape[1] == len(channels)
        patches = to_patches(image, self.settings.patch_px).permute(0, 3, 1, 2, 4)
        return patches[..., : self.width] * (1 if layer is None else layer)


@pytest.fixture
def local(settings: ModelSettings) -> LocalEncoder:
    return LocalEncoder(settings, STAINS, generator=torch.Generator().manual_seed(1))


def draw_field(height: int, width: int, *, batch: int = 1, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randn(batch, channels, height, width, generator=generator, dtype=torch.float64)


@given(length=st.integers(1, 70), tile=st.integers(1, 30), data=st.data())
def test_weights_of_overlapping_tiles_add_up_to_one(length: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    tiles = tile_weights(length, tile, overlap)
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in tiles.items():
        assert (weight > 0).all()
        assert len(weight) == min(tile, length)
        total[start : start + len(weight)] += weight
    torch.testing.assert_close(total, torch.ones_like(total))
    for left, right in pairwise(tiles):
        assert 0 < right - left <= tile - overlap


def test_a_tile_counts_less_towards_an_edge_that_it_shares() -> None:
    first, middle, last = tile_weights(20, 8, 2).values()
    assert (first[:6] == 1).all()
    assert (first[6:].diff() < 0).all()
    assert (last.diff()[:1] > 0).all()
    assert middle[0] < middle[3]
    assert middle[-1] < middle[4]


@given(height=st.integers(8, 90), width=st.integers(8, 90), tile=st.integers(1, 6), data=st.data())
def test_a_map_of_what_each_patch_shows_has_no_seams(
    height: int, width: int, tile: int, data: st.DataObject
) -> None:
    model = ModelSettings(width=16, depth=1, patch_px=PATCH_PX, position_grid=4)
    local = LocalEncoder(model, STAINS, generator=torch.Generator().manual_seed(1))
    overlap_px = data.draw(st.integers(0, (tile - 1) * PATCH_PX))
    field = draw_field(height, width)
    dense = dense_tokens(local, field, ["DNA", "Mito"], tile_px=tile * PATCH_PX, overlap_px=overlap_px)
    torch.testing.assert_close(dense, local.tokens(field, ["DNA", "Mito"]))


@pytest.mark.parametrize("layer", [None, 1])
def test_a_field_that_fits_a_tile_is_the_encoder_alone(encoder: ChannelEncoder, layer: int | None) -> None:
    field = draw_field(30, 48)
    dense = dense_tokens(encoder, field, ["DNA", "ER"], tile_px=48, overlap_px=16, layer=layer)
    assert torch.equal(dense, encoder.tokens(field, ["DNA", "ER"], layer=layer))


def test_a_tile_that_touches_no_other_is_just_as_the_encoder_saw_it(encoder: ChannelEncoder) -> None:
    field = draw_field(64, 32)
    dense = dense_tokens(encoder, field, ["DNA", "ER"], tile_px=32, overlap_px=0, tiles_per_pass=1)
    halves = [encoder.tokens(half, ["DNA", "ER"]) for half in field.split(32, dim=2)]
    assert torch.equal(dense, torch.cat(halves, dim=2))


def test_two_tiles_are_averaged_by_their_weights(encoder: ChannelEncoder) -> None:
    field = draw_field(32, 48)
    dense = dense_tokens(encoder, field, ["DNA", "ER"], tile_px=32, overlap_px=16)
    left, right = (encoder.tokens(field[..., start : start + 32], ["DNA", "ER"]) for start in (0, 16))
    share = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64).unsqueeze(-1)
    shared = left[:, :, :, 2:] * share + right[:, :, :, :2] * share.flip(0)
    expected = torch.cat([left[:, :, :, :2], shared, right[:, :, :, 2:]], dim=3)
    torch.testing.assert_close(dense, expected)


def test_a_constant_field_gives_what_a_tile_gives(local: LocalEncoder) -> None:
    field = torch.full((1, 2, 80, 56), 0.7)
    dense = dense_tokens(local, field, ["DNA", "ER"], tile_px=32, overlap_px=8)
    tile = local.tokens(field[..., :32, :32], ["DNA", "ER"])
    torch.testing.assert_close(dense, tile[:, :, :1, :1].expand_as(dense))


@pytest.mark.parametrize("tiles_per_pass", [1, 2, 5, 100])
def test_the_number_of_tiles_per_pass_changes_nothing(encoder: ChannelEncoder, tiles_per_pass: int) -> None:
    field = draw_field(70, 90, batch=2)
    passed: list[int] = []
    with torch.no_grad():
        expected = dense_tokens(encoder, field, ["DNA", "ER"], tile_px=32, overlap_px=8)
        hook = encoder.projection.register_forward_pre_hook(lambda _, patches: passed.append(len(patches[0])))
        dense = dense_tokens(
            encoder, field, ["DNA", "ER"], tile_px=32, overlap_px=8, tiles_per_pass=tiles_per_pass
        )
        hook.remove()
    torch.testing.assert_close(dense, expected)
    tiles = 2 * len(tile_weights(9, 4, 1)) * len(tile_weights(12, 4, 1))
    assert sum(passed) == tiles
    assert max(passed) == min(tiles_per_pass, tiles)


def test_samples_of_a_batch_do_not_meet(encoder: ChannelEncoder) -> None:
    fields = draw_field(40, 56, batch=2)
    together = dense_tokens(encoder, fields, ["DNA", "ER"], tile_px=32, overlap_px=8)
    for sample in range(2):
        alone = dense_tokens(
            encoder, fields[sample : sample + 1], ["DNA", "ER"], tile_px=32, overlap_px=8, layer=None
        )
        torch.testing.assert_close(together[sample], alone[0])


def test_permuting_channels_with_their_names_permutes_the_map(encoder: ChannelEncoder) -> None:
    field, order = draw_field(50, 41, channels=5), [3, 0, 4, 2, 1]
    dense = dense_tokens(encoder, field, STAINS, tile_px=32, overlap_px=8)
    names = [STAINS[i] for i in order]
    assert torch.equal(
        dense_tokens(encoder, field[:, order], names, tile_px=32, overlap_px=8), dense[:, order]
    )


@pytest.mark.parametrize("height", [33, 40, 47])
def test_odd_sizes_are_completed_once_for_the_whole_field(encoder: ChannelEncoder, height: int) -> None:
    field = draw_field(height, 50)
    missing = (0, -50 % PATCH_PX, 0, -height % PATCH_PX)
    completed = torch.nn.functional.pad(field, missing, mode="reflect")
    dense, whole = (
        dense_tokens(encoder, pixels, ["DNA", "ER"], tile_px=32, overlap_px=8)
        for pixels in (field, completed)
    )
    assert torch.equal(dense, whole)
    assert dense.shape[2:4] == (-(-height // PATCH_PX), 7)


def test_joint_tokens_have_one_map_for_all_channels(settings: ModelSettings) -> None:
    joint = ChannelEncoder(
        settings.model_copy(update={"tokenization": "joint"}),
        ["DNA", "ER"],
        generator=torch.Generator().manual_seed(1),
    ).double()
    dense = dense_tokens(joint, draw_field(40, 56), ["DNA", "ER"], tile_px=32, overlap_px=8)
    assert dense.shape == (1, 1, 5, 7, joint.width)
    assert dense.isfinite().all()


def test_gradients_reach_the_image_and_the_weights(settings: ModelSettings) -> None:
    encoder = ChannelEncoder(
        settings.model_copy(update={"depth": 1}), ["DNA"], generator=torch.Generator().manual_seed(1)
    ).double()
    direction = torch.randn(1, 1, 2, 3, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def score(pixels: Tensor) -> Tensor:
        return (dense_tokens(encoder, pixels, ["DNA"], tile_px=16, overlap_px=8) * direction).sum()

    field = draw_field(16, 24, channels=1).requires_grad_()
    assert torch.autograd.gradcheck(score, (field,), fast_mode=True)
    (gradient,) = torch.autograd.grad(score(field), encoder.projection.linear.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize(
    ("tile_px", "overlap_px", "message"),
    [
        (20, 8, "no multiple of the patch"),
        (0, 0, "no multiple of the patch"),
        (32, 32, "cannot share 32 px"),
        (32, -1, "cannot share -1 px"),
    ],
)
def test_tiles_that_cannot_be_are_refused(
    encoder: ChannelEncoder, tile_px: int, overlap_px: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        dense_tokens(encoder, draw_field(40, 40), ["DNA", "ER"], tile_px=tile_px, overlap_px=overlap_px)


def test_what_the_encoder_refuses_is_refused(encoder: ChannelEncoder) -> None:
    with pytest.raises(InputError, match="smaller than one patch"):
        dense_tokens(encoder, draw_field(5, 90), ["DNA", "ER"], tile_px=32, overlap_px=8)
    with pytest.raises(UsageError, match="blocks 0 to 3"):
        dense_tokens(encoder, draw_field(40, 40), ["DNA", "ER"], tile_px=32, overlap_px=8, layer=9)
