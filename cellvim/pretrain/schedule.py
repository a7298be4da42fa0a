"""Learning rate of each step, and memory of the moving average."""

import math

from cellvim.config import OptimizerSettings

SMALLEST_SHARE = 0.01
"""Learning rate at the end, as a share of the peak."""


def learning_rate(settings: OptimizerSettings, *, step: int, steps: int, batch_size: int) -> float:
    """Linear warm-up, then a cosine down to one hundredth of the peak.

    Args:
        settings: Base rate (at 256 crops a step) and share of steps for warm-up.
        step: From 0.
        steps: All steps of the run.
        batch_size: Crops per step; the peak grows linearly with it.
    """
    peak = settings.base_learning_rate * batch_size / 256
    warmup = max(1, round(settings.warmup_share * steps))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (SMALLEST_SHARE + (1 - SMALLEST_SHARE) * 0.5 * (1 + math.cos(math.pi * progress)))


def ema_decay(settings: OptimizerSettings, *, step: int) -> float:
    """Decay of the moving average: short memory at first, when the weights are still far from useful."""
    return min(settings.ema_decay, (1 + step) / (10 + step))
