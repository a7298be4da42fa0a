"""Draw fields of stained cells. Every pixel belongs to the cell whose ellipse reaches it first, so cells abut."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.random import Generator

from cellvim.demo.phenotype import Phenotype

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
"""The stains of Cell Painting, in the order of the wave numbers."""

MARGIN_PX = 20
NUCLEOLI = 4
CANDIDATES = 10


def draw_field(phenotype: Phenotype, *, side_px: int, generator: Generator) -> Float[ndarray, "channel y x"]:
    """Draw one square field as the stains would shine, before any microscope: about 0 to 2, no noise."""
    cells = _Cells.seeded(phenotype, side_px=side_px, generator=generator)
    shape = _Shapes.of(cells, phenotype, side_px=side_px)
    texture = _Textures(side_px, generator)
    planes = (
        _dna(shape, texture, phenotype),
        _er(shape, texture, phenotype),
        _rna(shape, texture, phenotype),
        _agp(shape, texture, phenotype),
        _mito(shape, texture, phenotype),
    )
    stain = cells.stain.astype(np.float32)[:, shape.owner]
    return np.stack(planes) * stain


@dataclass(frozen=True)
class _Cells:
    """Random properties of each cell of a field, one entry per cell."""

    center: Float[ndarray, "cell yx"]
    angle: Float[ndarray, " cell"]
    axes: Float[ndarray, "cell longshort"]
    wobble: Float[ndarray, "cell wave"]
    nucleus_shift: Float[ndarray, "cell yx"]
    nucleus_angle: Float[ndarray, " cell"]
    nucleus_axes: Float[ndarray, "cell longshort"]
    nucleoli: Float[ndarray, "cell nucleolus yx"]
    golgi_angle: Float[ndarray, " cell"]
    stain: Float[ndarray, "channel cell"]

    @classmethod
    def seeded(cls, phenotype: Phenotype, *, side_px: int, generator: Generator) -> "_Cells":
        count = max(3, int(generator.poisson(phenotype.cells_per_field)))
        size = generator.lognormal(0.0, 0.10, count)
        ratio = np.sqrt(phenotype.elongation * generator.lognormal(0.0, 0.12, count))
        radius = phenotype.cell_radius_px * size
        nucleus = phenotype.nucleus_radius_px * np.sqrt(size) * generator.lognormal(0.0, 0.06, count)
        roundness = np.sqrt(generator.uniform(1.0, 1.35, count))
        angle = generator.uniform(0, 2 * np.pi, count)
        return cls(
            center=_spread_out(count, side_px, generator),
            angle=angle,
            axes=np.stack([radius * ratio, radius / ratio], axis=1),
            wobble=generator.normal(0.0, 0.06, (count, 4)),
            nucleus_shift=generator.normal(0.0, 2.0, (count, 2)),
            nucleus_angle=angle + generator.normal(0.0, 0.4, count),
            nucleus_axes=np.stack([nucleus * roundness, nucleus / roundness], axis=1),
            nucleoli=generator.normal(0.0, 0.36, (count, NUCLEOLI, 2)) * nucleus[:, None, None],
            golgi_angle=generator.uniform(0, 2 * np.pi, count),
            stain=generator.lognormal(0.0, 0.14, (len(CHANNELS), count)),
        )


def _spread_out(count: int, side_px: int, generator: Generator) -> Float[ndarray, "cell yx"]:
    """Place cells by best candidate: of a few random points, the one furthest from all cells so far."""
    tries = generator.uniform(-MARGIN_PX, side_px + MARGIN_PX, (count, CANDIDATES, 2))
    placed = tries[:1, 0]
    for candidates in tries[1:]:
        distance = ((candidates[:, None] - placed[None]) ** 2).sum(-1).min(1)
        placed = np.concatenate([placed, candidates[distance.argmax()][None]])
    return placed


@dataclass(frozen=True)
class _Shapes:
    """Where each pixel lies within its cell."""

    owner: Int[ndarray, "y x"]
    cell: Float[ndarray, "y x"]
    """1 inside a cell, 0 between cells, soft at the edge."""
    reach: Float[ndarray, "y x"]
    """0 at the centre of the cell, 1 at its rim."""
    edge_px: Float[ndarray, "y x"]
    """Distance to the cell's edge, also where two cells touch."""
    nucleus: Float[ndarray, "y x"]
    rim: Float[ndarray, "y x"]
    """1 on the nuclear envelope."""
    nucleoli: Float[ndarray, "y x"]
    golgi: Float[ndarray, "y x"]
    across: Float[ndarray, "y x"]
    """Position in pixels across the cell's long axis."""

    @classmethod
    def of(cls, cells: _Cells, phenotype: Phenotype, *, side_px: int) -> "_Shapes":
        owner, first, second = _nearest_two(cells, side_px)
        radius = cells.axes.mean(1).astype(np.float32)[owner]
        edge = np.minimum(1 - first, (second - first) / 2) * radius
        dy, dx = _offsets(side_px, cells.center[owner])
        ny, nx = _offsets(side_px, (cells.center + cells.nucleus_shift)[owner])
        along, across = _rotate(ny, nx, _gather(cells.nucleus_angle, owner))
        axes = cells.nucleus_axes.astype(np.float32)[owner]
        depth = np.hypot(along / axes[..., 0], across / axes[..., 1])
        nucleus = _step((1 - depth) * phenotype.nucleus_radius_px / 0.8)
        return cls(
            owner=owner,
            cell=_step(edge / 1.2),
            reach=first,
            edge_px=edge,
            nucleus=nucleus,
            rim=np.exp(-(((depth - 1.08) / 0.14) ** 2)),
            nucleoli=_nucleoli(cells, owner, (ny, nx), phenotype) * nucleus,
            golgi=_golgi(cells, owner, (ny, nx)) * (1 - nucleus),
            across=_rotate(dy, dx, _gather(cells.angle, owner))[1],
        )


def _nearest_two(
    cells: _Cells, side_px: int
) -> tuple[Int[ndarray, "y x"], Float[ndarray, "y x"], Float[ndarray, "y x"]]:
    """Find for every pixel the cell that reaches it first, its reach, and that of the runner-up."""
    owner = np.zeros((side_px, side_px), np.intp)
    first = np.full(owner.shape, np.float32(9))
    second = first.copy()
    for k in range(len(cells.angle)):
        reach = _reach(cells, k, side_px)
        is_first = reach < first
        second = np.minimum(second, np.where(is_first, first, reach))
        first = np.where(is_first, reach, first)
        owner[is_first] = k
    return owner, first, second


def _reach(cells: _Cells, k: int, side_px: int) -> Float[ndarray, "y x"]:
    """Distance of every pixel from the centre of cell `k`, in units of that cell's wavy elliptic outline."""
    line = np.arange(side_px, dtype=np.float32)
    center, axes = cells.center[k].astype(np.float32), cells.axes[k].astype(np.float32)
    along, across = _rotate(line[:, None] - center[0], line[None] - center[1], cells.angle[k : k + 1])
    along, across = along / axes[0], across / axes[1]
    distance = np.hypot(along, across) + np.float32(1e-3)
    # Waves of two and three per turn, by polynomials of cosine and sine: no arctan per cell and pixel.
    c, s = along / distance, across / distance
    w = cells.wobble[k].astype(np.float32)
    squared = c * c
    outline = 1 + w[0] * (2 * squared - 1) + s * (2 * w[1] * c + w[3] * (4 * squared - 1))
    outline += w[2] * c * (4 * squared - 3)
    return np.asarray(distance / outline)


def _nucleoli(
    cells: _Cells,
    owner: Int[ndarray, "y x"],
    offset: tuple[Float[ndarray, "y x"], Float[ndarray, "y x"]],
    phenotype: Phenotype,
) -> Float[ndarray, "y x"]:
    dots = np.zeros(owner.shape, np.float32)
    for k in range(NUCLEOLI):
        y = offset[0] - _gather(cells.nucleoli[:, k, 0], owner)
        x = offset[1] - _gather(cells.nucleoli[:, k, 1], owner)
        size = phenotype.nucleolus_radius_px * (1.0 - 0.15 * k)
        dots = np.maximum(dots, np.exp(-(y * y + x * x) / np.float32(size * size)))
    return dots


def _golgi(
    cells: _Cells, owner: Int[ndarray, "y x"], offset: tuple[Float[ndarray, "y x"], Float[ndarray, "y x"]]
) -> Float[ndarray, "y x"]:
    """Draw a cap beside the nucleus."""
    distance = 1.35 * cells.nucleus_axes.mean(1)
    y = offset[0] - _gather(distance * np.sin(cells.golgi_angle), owner)
    x = offset[1] - _gather(distance * np.cos(cells.golgi_angle), owner)
    return np.asarray(np.exp(-(y * y + x * x) / np.float32(4.5**2)))


class _Textures:
    """Random patterns of one field, drawn in a fixed order from its generator."""

    def __init__(self, side_px: int, generator: Generator) -> None:
        self._generator = generator
        self._side = side_px
        frequency = np.fft.fftfreq(side_px)[:, None] ** 2 + np.fft.rfftfreq(side_px)[None] ** 2
        self._squared_frequency = frequency.astype(np.float32)

    def noise(self, grain_px: float) -> Float[ndarray, "y x"]:
        """Draw a pattern of mean 0 and standard deviation 1 whose grains are about `grain_px` wide."""
        white = self._generator.standard_normal((self._side, self._side), dtype=np.float32)
        scaled = self._squared_frequency * np.float32((2 * np.pi * grain_px) ** 2)
        # Gaussian times frequency squared: no slow drift, so that the grain is the only scale.
        band = scaled * np.exp(-scaled / 2)
        pattern = np.fft.irfft2(np.fft.rfft2(white) * band, s=white.shape).astype(np.float32)
        return np.asarray(pattern / pattern.std())


def _dna(shape: _Shapes, texture: _Textures, phenotype: Phenotype) -> Float[ndarray, "y x"]:
    chromatin = 1 + phenotype.chromatin_contrast * texture.noise(1.6) - 0.35 * shape.nucleoli
    return np.asarray(
        phenotype.nucleus_brightness * shape.nucleus * np.maximum(chromatin, 0.1) + 0.015 * shape.cell
    )


def _er(shape: _Shapes, texture: _Textures, phenotype: Phenotype) -> Float[ndarray, "y x"]:
    grain = np.maximum(1 + phenotype.er_grain_contrast * texture.noise(phenotype.er_grain_px), 0)
    sheet = np.exp(-((shape.reach / phenotype.er_spread) ** 2)) * grain * (1 - 0.75 * shape.nucleus)
    return phenotype.er_brightness * shape.cell * (sheet + 0.35 * shape.rim + 0.08)


def _rna(shape: _Shapes, texture: _Textures, phenotype: Phenotype) -> Float[ndarray, "y x"]:
    cytoplasm = (1 + 0.18 * texture.noise(1.2)) * np.exp(-((shape.reach / 0.75) ** 2)) * (1 - shape.nucleus)
    nucleoli = phenotype.nucleolus_brightness * shape.nucleoli
    return np.asarray(shape.cell * (0.5 * cytoplasm + 0.30 * shape.nucleus + 0.06) + 1.1 * nucleoli)


def _agp(shape: _Shapes, texture: _Textures, phenotype: Phenotype) -> Float[ndarray, "y x"]:
    phase = shape.across * np.float32(2 * np.pi / 5.0) + 1.2 * texture.noise(6.0)
    stripes = np.maximum(np.cos(phase), 0) ** 3 * np.maximum(0.6 + 0.6 * texture.noise(4.0), 0)
    edge = np.exp(-((np.maximum(shape.edge_px - 1.0, 0) / 1.6) ** 2)) * (1 + 0.3 * texture.noise(2.0))
    cap = phenotype.golgi_brightness * shape.golgi * (1 + 0.4 * texture.noise(1.2))
    body = phenotype.actin_fibers * stripes + phenotype.actin_edge * edge + cap
    return np.asarray(shape.cell * (0.18 + np.maximum(body, 0)) * (1 - 0.45 * shape.nucleus))


def _mito(shape: _Shapes, texture: _Textures, phenotype: Phenotype) -> Float[ndarray, "y x"]:
    threads = np.exp(-((texture.noise(2.4) / 0.30) ** 2)) * np.maximum(0.9 + 0.5 * texture.noise(5.0), 0)
    dots = 1.8 * np.maximum(texture.noise(2.0) - 0.8, 0)
    share = np.float32(min(phenotype.mito_fragmentation, 1.0))
    network = (1 - share) * threads + share * dots
    spread = np.exp(-((shape.reach / phenotype.mito_spread) ** 2))
    outside = shape.cell * (1 - 0.92 * shape.nucleus)
    return np.asarray(phenotype.mito_brightness * outside * (network * spread + 0.05))


def _offsets(
    side_px: int, center: Float[ndarray, "y x 2"]
) -> tuple[Float[ndarray, "y x"], Float[ndarray, "y x"]]:
    line = np.arange(side_px, dtype=np.float32)
    return line[:, None] - center[..., 0].astype(np.float32), line[None] - center[..., 1].astype(np.float32)


def _rotate(
    dy: Float[ndarray, "*shape"], dx: Float[ndarray, "*shape"], angle: Float[ndarray, "*angle"]
) -> tuple[Float[ndarray, "*rotated"], Float[ndarray, "*rotated"]]:
    """Turn offsets into positions along and across an axis at `angle`."""
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _gather(values: Float[ndarray, " cell"], owner: Int[ndarray, "y x"]) -> Float[ndarray, "y x"]:
    return np.asarray(values.astype(np.float32)[owner])


def _step(signed: Float[ndarray, "y x"]) -> Float[ndarray, "y x"]:
    """Go smoothly from 0 to 1 as `signed` goes from negative to positive."""
    return np.asarray(1 / (1 + np.exp(-4 * np.clip(signed, -8, 8))))
