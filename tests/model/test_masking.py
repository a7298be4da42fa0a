"""Dynamic channel-patch masking: what is hidden in which step."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellvim.config import MaskingSettings, ModelSettings
from cellvim.errors import UsageError
from cellvim.model import Mask, draw_channels, draw_mask
from cellvim.model.sequence import kept_ids, kept_plan

PATCHES = MaskingSettings(channel_steps=0.0)
CHANNELS = MaskingSettings(channel_steps=1.0)


def draw(settings: MaskingSettings, *, channels: int = 5, step: int = 0, seed: int = 0) -> Mask:
    return draw_mask(settings, batch=8, channels=channels, grid=(7, 6), seed=seed, step=step)


@given(
    ratio=st.floats(0.01, 0.99),
    channels=st.integers(1, 8),
    rows=st.integers(1, 14),
    cols=st.integers(2, 14),
    step=st.integers(0, 1000),
)
def test_a_patch_step_hides_the_same_number_in_every_channel_of_every_sample(
    ratio: float, channels: int, rows: int, cols: int, step: int
) -> None:
    settings = MaskingSettings(mask_ratio=ratio, channel_steps=0.0)
    mask = draw_mask(settings, batch=3, channels=channels, grid=(rows, cols), seed=1, step=step)
    kept = (~mask.hidden).sum((2, 3))
    assert (kept == kept[0, 0]).all()
    assert 1 <= kept[0, 0] < rows * cols
    assert kept[0, 0] == max(1, min(int(rows * cols * (1 - ratio)), rows * cols - 1))


def test_channels_and_samples_are_masked_independently() -> None:
    hidden = draw(PATCHES).hidden.flatten(0, 1).flatten(1)
    assert len({tuple(row.tolist()) for row in hidden}) == len(hidden)


def test_a_channel_step_hides_equally_many_whole_channels_in_each_sample() -> None:
    counts = Counter()
    for step in range(400):
        mask = draw(CHANNELS, step=step)
        if mask.kind == "patch":
            counts[0] += 1
            continue
        by_channel = mask.hidden.flatten(2)
        assert torch.equal(by_channel.all(-1), by_channel.any(-1))
        targets = by_channel.all(-1).sum(1)
        assert (targets == targets[0]).all()
        assert not mask.unnamed.any()
        counts[int(targets[0])] += 1
    # k is uniform over 0 to T - 1; 400 draws of 5 values lie within 80 +- 40 by a wide margin.
    assert set(counts) == {0, 1, 2, 3, 4}
    assert all(40 < count < 120 for count in counts.values())


def test_targets_differ_between_samples() -> None:
    masks = [draw(CHANNELS, step=step) for step in range(20)]
    partial = [mask.hidden[:, :, 0, 0] for mask in masks if mask.kind == "channel"]
    assert any(len({tuple(row.tolist()) for row in rows}) > 1 for rows in partial)


def test_a_single_channel_is_always_masked_by_patches() -> None:
    assert {draw(CHANNELS, channels=1, step=step).kind for step in range(20)} == {"patch"}


def test_about_half_of_the_steps_are_channel_steps() -> None:
    kinds = Counter(draw(MaskingSettings(channel_steps=0.5), step=step).kind for step in range(400))
    # Half of them, less the fifth in which k = 0.
    assert 0.3 < kinds["channel"] / 400 < 0.5


def test_names_are_dropped_in_patch_steps_at_the_given_rate() -> None:
    settings = MaskingSettings(channel_steps=0.0, name_dropout=0.25)
    dropped = torch.stack([draw(settings, step=step).unnamed for step in range(400)])
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.05)
    never = MaskingSettings(channel_steps=0.0, name_dropout=0.0)
    assert not draw(never).unnamed.any()


def test_the_mask_is_a_function_of_seed_and_step_alone() -> None:
    first, again = draw(PATCHES, step=5), draw(PATCHES, step=5)
    assert torch.equal(first.hidden, again.hidden)
    assert torch.equal(first.unnamed, again.unnamed)
    assert not torch.equal(first.hidden, draw(PATCHES, step=6).hidden)
    assert not torch.equal(first.hidden, draw(PATCHES, step=5, seed=1).hidden)


def test_a_single_patch_cannot_be_masked() -> None:
    with pytest.raises(UsageError, match="cannot be masked"):
        draw_mask(PATCHES, batch=1, channels=2, grid=(1, 1), seed=0, step=0)


def test_batches_that_keep_unequally_are_a_bug() -> None:
    hidden = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    hidden[0, 0, 0, 0] = True
    with pytest.raises(AssertionError, match="equally many tokens"):
        kept_ids(hidden)
    hidden = torch.zeros(2, 2, 2, 2, dtype=torch.bool)
    hidden[0, ..., 0] = True
    with pytest.raises(AssertionError, match="equally many channels"):
        kept_plan(ModelSettings(), hidden)


SAMPLED = MaskingSettings(channel_sampling=True)


def test_without_channel_sampling_every_step_has_every_channel() -> None:
    assert {draw_channels(MaskingSettings(), channels=5, seed=0, step=step) for step in range(20)} == {
        (0, 1, 2, 3, 4)
    }


@given(channels=st.integers(1, 8), seed=st.integers(0, 99), step=st.integers(0, 1000))
def test_sampled_channels_are_distinct_sorted_and_a_function_of_seed_and_step(
    channels: int, seed: int, step: int
) -> None:
    drawn = draw_channels(SAMPLED, channels=channels, seed=seed, step=step)
    assert drawn == draw_channels(SAMPLED, channels=channels, seed=seed, step=step)
    assert list(drawn) == sorted(set(drawn))
    assert 1 <= len(drawn) <= channels
    assert set(drawn) <= set(range(channels))


def test_the_number_of_sampled_channels_is_uniform_and_no_channel_is_preferred() -> None:
    draws = [draw_channels(SAMPLED, channels=5, seed=0, step=step) for step in range(2000)]
    sizes = Counter(len(drawn) for drawn in draws)
    members = Counter(channel for drawn in draws for channel in drawn)
    # 2000 draws: 400 of each size (deviation 18), each channel in 1200 of them (deviation 22).
    assert all(310 < sizes[size] < 490 for size in range(1, 6))
    assert all(1090 < members[channel] < 1310 for channel in range(5))
    assert draws != [draw_channels(SAMPLED, channels=5, seed=1, step=step) for step in range(2000)]


def test_sampling_channels_leaves_the_mask_of_the_step_alone() -> None:
    for step in range(8):
        plain, sampled = (
            draw_mask(settings, batch=2, channels=3, grid=(4, 4), seed=0, step=step)
            for settings in (MaskingSettings(), SAMPLED)
        )
        assert torch.equal(plain.hidden, sampled.hidden)
