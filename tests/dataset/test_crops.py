"""What a training run is shown: only usable fields, drawn evenly, and each step on its own."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cellvim.config import CropSettings
from cellvim.dataset import (
    CropSource,
    DrawnField,
    EvenDraws,
    PlateGroup,
    SampleKey,
    TrainingIndex,
    Window,
    normalize_pixels,
)
from cellvim.errors import InputError
from cellvim.store import FieldKey

PLAIN = CropSettings(crop_px=32, gain_jitter=0, is_flipped=False)


def drawn_fields(index: TrainingIndex, draws: int) -> Counter[tuple[str, FieldKey]]:
    generator = np.random.default_rng(0)
    counts: Counter[tuple[str, FieldKey]] = Counter()
    for _ in range(draws):
        drawn = index.draw_field(index.draw_group(generator), generator)
        counts[drawn.plate.name, drawn.field] += 1
    return counts


def test_a_field_with_a_filled_plane_is_never_drawn(make_plate: Any) -> None:
    index = TrainingIndex([make_plate(invalid=(("A01", 1, 0), ("B02", 2, 2)))], crop_px=32)
    counts = drawn_fields(index, 300)
    assert index.field_count == len(counts) == 6
    assert {("P1", FieldKey("A01", 1)), ("P1", FieldKey("B02", 2))}.isdisjoint(counts)


def test_plates_wells_and_fields_are_drawn_evenly(make_plate: Any) -> None:
    plates = [make_plate("P1", wells=("A01",), sites=4), make_plate("P2", wells=("A01", "A02"), sites=1)]
    draws = 4000
    counts = drawn_fields(TrainingIndex(plates, crop_px=32), draws)
    expected = {("P1", FieldKey("A01", site)): draws / 8 for site in range(1, 5)}
    expected |= {("P2", FieldKey(well, 1)): draws / 4 for well in ("A01", "A02")}
    assert counts.keys() == expected.keys()
    deviation = 5 * np.sqrt(draws)
    assert all(abs(counts[key] - wanted) < deviation for key, wanted in expected.items())


def test_plates_of_other_channels_never_share_a_batch(make_plate: Any) -> None:
    index = TrainingIndex([make_plate("P1"), make_plate("P2", channels=("ER", "AGP"))], crop_px=32)
    source = CropSource(index, PLAIN, batch_size=3, seed=0)
    seen = {source.batch(step).channels: source.batch(step).images.shape[1] for step in range(20)}
    assert seen == {("DNA", "ER", "Mito"): 3, ("ER", "AGP"): 2}
    assert index.channels == ("DNA", "ER", "Mito", "AGP")


def test_a_step_depends_on_no_other_step_and_on_no_order(make_plate: Any) -> None:
    plates = [make_plate("P1"), make_plate("P2")]
    first = CropSource(TrainingIndex(plates, crop_px=32), CropSettings(crop_px=32), batch_size=4, seed=1)
    expected = [first.batch(step).images for step in range(3)]
    backwards = CropSource(
        TrainingIndex(plates[::-1], crop_px=32), CropSettings(crop_px=32), batch_size=4, seed=1
    )
    for step in (2, 0, 1):
        torch.testing.assert_close(backwards.batch(step).images, expected[step], rtol=0, atol=0)
    other = CropSource(TrainingIndex(plates, crop_px=32), CropSettings(crop_px=32), batch_size=4, seed=2)
    assert not torch.equal(other.batch(0).images, expected[0])


def test_a_crop_is_a_window_of_its_normalised_field(make_plate: Any) -> None:
    plate = make_plate(wells=("A01",), sites=1)
    (crop,) = (
        CropSource(TrainingIndex([plate], crop_px=32), PLAIN, batch_size=1, seed=0).batch(0).images.numpy()
    )
    (key,) = plate.fields
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    whole = normalize_pixels(plate.read_field(key), bounds, plate.intensity.moments(key))
    windows = [whole[:, top : top + 32, left : left + 32] for top in range(17) for left in range(17)]
    assert sum(np.array_equal(crop, window) for window in windows) == 1


def test_augmentation_turns_mirrors_and_scales_but_invents_nothing(make_plate: Any) -> None:
    plate = make_plate(wells=("A01",), sites=1, side_px=32)
    index = TrainingIndex([plate], crop_px=32)
    plain = CropSource(index, PLAIN, batch_size=1, seed=0).batch(0).images[0].numpy()
    turned = CropSource(index, PLAIN.model_copy(update={"is_flipped": True}), batch_size=16, seed=0).batch(0)
    looks = {crop.numpy().tobytes() for crop in turned.images}
    wanted = {
        np.ascontiguousarray(side).tobytes()
        for turns in range(4)
        for side in (np.rot90(plain, turns, (1, 2)), np.rot90(plain, turns, (1, 2))[:, :, ::-1])
    }
    assert looks <= wanted
    assert len(looks) > 4
    jittered = CropSource(index, PLAIN.model_copy(update={"gain_jitter": 0.2}), batch_size=8, seed=0).batch(0)
    gain = (jittered.images.numpy() / plain).reshape(8, 3, -1)
    np.testing.assert_allclose(gain.std(axis=2), 0, atol=1e-3)
    assert 0.8 <= gain.min() < gain.max() <= 1.2


def test_plates_without_a_usable_field_are_refused(make_plate: Any) -> None:
    plate = make_plate(wells=("A01",), sites=2, invalid=(("A01", 1, 0), ("A01", 2, 1)))
    with pytest.raises(InputError, match="none of the plates has a field with every channel"):
        TrainingIndex([plate], crop_px=32)


def test_a_slice_of_a_step_is_that_slice_of_its_crops(make_plate: Any) -> None:
    source = CropSource(
        TrainingIndex([make_plate()], crop_px=32), CropSettings(crop_px=32), batch_size=6, seed=3
    )
    whole, part = source.batch(5), source.batch(5, range(2, 4))
    assert (part.first, part.size, len(part.images)) == (2, 6, 2)
    assert torch.equal(part.images, whole.images[2:4])
    assert whole.labels is None
    with ThreadPoolExecutor(2) as pool:
        assert torch.equal(source.begin(5, range(2, 4), pool)().images, part.images)


def test_a_draw_says_label_and_window_of_a_crop(make_plate: Any) -> None:
    class LowerHalf(EvenDraws):
        def draw_field(self, group: PlateGroup, key: SampleKey, generator: np.random.Generator) -> DrawnField:
            drawn = super().draw_field(group, key, generator)
            return replace(drawn, label=key.sample, window=Window(16, 0, 32, 48))

    plate = make_plate(wells=("A01",), sites=1)
    index = TrainingIndex([plate], crop_px=32)
    batch = CropSource(index, PLAIN, batch_size=8, seed=0, draws=LowerHalf(index)).batch(0)
    assert batch.labels is not None
    assert batch.labels.tolist() == list(range(8))
    (key,) = plate.fields
    bounds = np.array([plate.intensity.clip_bounds(channel) for channel in plate.channels])
    whole = normalize_pixels(plate.read_field(key), bounds, plate.intensity.moments(key))
    windows = {whole[:, 16:, left : left + 32].tobytes() for left in range(17)}
    assert {crop.tobytes() for crop in batch.images.numpy()} <= windows
