"""The learning rate's shape and the moving average's memory."""

import pytest

from cellvim.config import OptimizerSettings
from cellvim.pretrain.schedule import ema_decay, learning_rate

SETTINGS = OptimizerSettings(base_learning_rate=1e-3, warmup_share=0.1)


def test_rate_rises_over_the_warm_up_and_falls_to_a_hundredth() -> None:
    rates = [learning_rate(SETTINGS, step=step, steps=100, batch_size=256) for step in range(100)]
    assert rates[9] == pytest.approx(1e-3)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(1e-5, rel=0.1)


def test_rate_grows_with_the_batch() -> None:
    small, large = (learning_rate(SETTINGS, step=20, steps=100, batch_size=size) for size in (64, 256))
    assert large == pytest.approx(4 * small)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_finite_positive_rates(steps: int) -> None:
    assert all(learning_rate(SETTINGS, step=step, steps=steps, batch_size=8) > 0 for step in range(steps))


def test_moving_average_forgets_quickly_at_first() -> None:
    assert ema_decay(SETTINGS, step=0) == pytest.approx(0.1)
    assert ema_decay(SETTINGS, step=100_000) == SETTINGS.ema_decay
