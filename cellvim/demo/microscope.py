"""Turn stained cells into camera counts: blur, plate-wide gain, vignette, background, noise, 16 bits."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt16
from numpy import ndarray
from numpy.random import Generator

BLUR_PX = 0.9
OFFSET = 100.0
READ_NOISE = 6.0
ELECTRONS_PER_COUNT = 0.25


@dataclass(frozen=True)
class Microscope:
    """How one plate was imaged. The demo's nuisance: it differs by plate, and says nothing about biology."""

    exposure: tuple[float, ...]
    """Counts of a stain of brightness 1, by channel."""
    background: tuple[float, ...]
    """Counts between cells, by channel."""
    vignette: float
    """Share of the light lost in the corner that is furthest from the brightest spot."""
    center: tuple[float, float]
    """Brightest spot (y, x), as a share of the field's side."""

    @classmethod
    def drawn(cls, channels: int, generator: Generator) -> "Microscope":
        return cls(
            exposure=tuple(float(x) for x in 1500 * generator.lognormal(0.0, 0.25, channels)),
            background=tuple(float(x) for x in generator.uniform(60, 160, channels)),
            vignette=float(generator.uniform(0.15, 0.35)),
            center=(float(generator.uniform(0.35, 0.65)), float(generator.uniform(0.35, 0.65))),
        )

    def image(
        self, stains: Float[ndarray, "channel y x"], generator: Generator
    ) -> UInt16[ndarray, "channel y x"]:
        """Take a picture of a field.

        Args:
            stains: Brightness without noise, about 0 to 2.
            generator: Source of shot and read noise.
        """
        exposure = np.array(self.exposure, np.float32)[:, None, None]
        background = np.array(self.background, np.float32)[:, None, None]
        light = (_blurred(stains) * exposure + background) * self.illumination(stains.shape[-1])
        light = np.maximum(light, 0)
        deviation = np.sqrt(light / ELECTRONS_PER_COUNT + READ_NOISE**2)
        counts = light + deviation * generator.standard_normal(light.shape, dtype=np.float32) + OFFSET
        return np.asarray(np.clip(np.rint(counts), 0, 65535), dtype=np.uint16)

    def illumination(self, side_px: int) -> Float[ndarray, "y x"]:
        """Give the light that reaches each pixel; 1 at the brightest spot."""
        line = (np.arange(side_px, dtype=np.float32) + 0.5) / side_px
        squared = (line - self.center[0])[:, None] ** 2 + (line - self.center[1])[None] ** 2
        return np.asarray(1 - self.vignette * squared / squared.max(), dtype=np.float32)


def _blurred(stains: Float[ndarray, "channel y x"]) -> Float[ndarray, "channel y x"]:
    side = stains.shape[-1]
    frequency = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None] ** 2
    transfer = np.exp(-2 * (np.pi * BLUR_PX) ** 2 * frequency).astype(np.float32)
    # Mirrored edges would cost four times the pixels; the wrap reaches two pixels only.
    return np.fft.irfft2(np.fft.rfft2(stains) * transfer, s=stains.shape[-2:]).astype(np.float32)
