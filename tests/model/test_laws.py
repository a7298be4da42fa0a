"""The laws that every member of the family obeys, over all combinations of the settings that change the scan.

They are tested here and nowhere else for the variants; what only one variant does is in `test_backbones.py`.
"""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.model import ChannelEncoder
from cellvim.model.channel_embed import to_patches

STAINS = ("DNA", "ER", "Mito")
BACKBONES = ("fast_channel_vim", "bag_of_channels", "channel_vim", "channel_vit")
BF16_BOUND = 0.006
"""Relative error (2-norm) under bf16. Rounding to 8 bits is 2e-3 at most per product, over a few blocks: 0.0027 to
0.0036 were found, over 14 variants and six seeds."""

POOLED = [
    {"pool": pool, "pool_divisor": divisor, "backward_rows": rows, "scan_order": order, "scan_path": path}
    for pool, divisor, rows, order, path in product(
        ("mean", "max"),
        ("count", "width"),
        ("corrected", "published"),
        ("channel-first", "spatial-first", "alternating"),
        ("rowwise", "colwise"),
    )
]
OTHERS = [
    {"backbone": backbone, "scan_order": order, "scan_path": path}
    for backbone, order, path in product(BACKBONES[1:], ("channel-first", "spatial-first"), ("rowwise", "colwise"))
]  # fmt: skip
LONE = [
    {"is_rotated": False},
    {"has_inner_norm": False},
    {"position_grid": (2, 3)},
    {"backbone": "bag_of_channels", "scan_path": "colwise", "pool": "max"},
]
ALL = [*POOLED, *LONE, *OTHERS]
OURS_AND_PUBLISHED = [
    changes
    for changes in ALL
    if (changes.get("pool_divisor"), changes.get("backward_rows"))
    in {("count", "corrected"), ("width", "published"), (None, None)}
]


def encoder_of(**changes: Any) -> ChannelEncoder:
    """A toy encoder in float64, weights large enough that no term hides."""
    depth = 4 if changes.get("scan_order") == "alternating" else 2
    size = {"width": 8, "depth": depth, "patch_px": 8, "state_size": 3, "position_grid": 4}
    model = ModelSettings.checked(size | changes)
    generator = torch.Generator().manual_seed(5)
    encoder = ChannelEncoder(model, STAINS, generator=generator).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    return encoder


def named(changes: dict[str, Any]) -> str:
    settings = (name if value is False else f"{value}" for name, value in changes.items())
    return "-".join(settings)


def some_hidden() -> Tensor:
    """Hide 9 of 15 patches of each channel, others in each sample."""
    noise = torch.rand(2, 15, 3, generator=torch.Generator().manual_seed(7))
    return (noise.argsort(1).argsort(1) < 9).view(2, 3, 5, 3)


@pytest.fixture(params=OURS_AND_PUBLISHED, ids=named)
def member(request: pytest.FixtureRequest) -> ChannelEncoder:
    return encoder_of(**request.param)


@pytest.fixture(scope="module")
def image() -> Tensor:
    """Two samples, three stains, 3 x 5 patches."""
    return torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


@pytest.mark.parametrize("changes", ALL, ids=named)
def test_dense_equals_masked_that_keeps_everything(changes: dict[str, Any], image: Tensor) -> None:
    member = encoder_of(**changes)
    kept = member.encode_kept(to_patches(image, 8), range(3), torch.zeros(2, 3, 5, 3, dtype=torch.bool))
    dense = member.tokens(image, STAINS).permute(0, 2, 3, 1, 4)
    torch.testing.assert_close(kept.view_as(dense), dense)


def test_permuting_channels_with_their_names_changes_nothing_but_order(
    member: ChannelEncoder, image: Tensor
) -> None:
    order = [2, 0, 1]
    permuted = member.tokens(image[:, order], [STAINS[i] for i in order])
    torch.testing.assert_close(permuted, member.tokens(image, STAINS)[:, order])


def test_a_subset_of_channels_equals_the_same_subset_fed_alone(member: ChannelEncoder, image: Tensor) -> None:
    visible = [0, 2]
    hidden = torch.ones(2, 3, 5, 3, dtype=torch.bool)
    hidden[..., visible] = False
    kept = member.encode_kept(to_patches(image, 8), range(3), hidden)
    alone = member.tokens(image[:, visible], [STAINS[i] for i in visible]).permute(0, 2, 3, 1, 4)
    torch.testing.assert_close(kept.view_as(alone), alone)


def test_a_batch_of_one_equals_a_batch_of_many(member: ChannelEncoder, image: Tensor) -> None:
    hidden = some_hidden()
    patches = to_patches(image, 8)
    together = member.encode_kept(patches, range(3), hidden)
    for sample in range(2):
        one = slice(sample, sample + 1)
        torch.testing.assert_close(member.encode_kept(patches[one], range(3), hidden[one]), together[one])
        torch.testing.assert_close(member.tokens(image[one], STAINS), member.tokens(image, STAINS)[one])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    ("height", "width", "grid"), [(224, 224, (28, 28)), (250, 310, (32, 39)), (9, 8, (2, 1))]
)
def test_any_size_works_and_the_mirrored_margin_is_that_of_the_completed_image(
    backbone: str, height: int, width: int, grid: tuple[int, int]
) -> None:
    encoder = encoder_of(backbone=backbone).float()
    image = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(8))
    tokens = encoder.tokens(image, STAINS[:2])
    assert tokens.shape == (1, 2, *grid, encoder.width)
    assert tokens.isfinite().all()
    margins = (0, -width % 8, 0, -height % 8)
    completed = torch.nn.functional.pad(image, margins, mode="reflect")
    assert torch.equal(encoder.tokens(completed, STAINS[:2]), tokens)


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize(
    "changes", [{"backbone": name} for name in BACKBONES] + [{"pool": "max"}, *LONE], ids=named
)
def test_bf16_stays_within_its_bound_of_fp32(changes: dict[str, Any], is_masked: bool, image: Tensor) -> None:
    model = ModelSettings.checked({"width": 48, "depth": 6, "patch_px": 8, "position_grid": 4} | changes)
    encoder = ChannelEncoder(model, STAINS, generator=torch.Generator().manual_seed(5))
    single = image.float()

    def encode() -> Tensor:
        if is_masked:
            return encoder.encode_kept(to_patches(single, 8), range(3), some_hidden())
        return encoder.features(single, STAINS)

    exact = encode()
    with torch.autocast("cpu", torch.bfloat16):
        rough = encode()
    assert rough.dtype == torch.float32
    error = (rough - exact).norm() / exact.norm()
    assert 0 < error < BF16_BOUND
