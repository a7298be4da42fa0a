"""One channel of one field: its planes read one after the other, and made into one."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cellvim.config import IngestSettings
from cellvim.ingest.images import fingerprint, read_plane
from cellvim.ingest.images.tiff import DamagedImageError
from cellvim.ingest.planes import ChannelPlan
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.quality import EMPTY, Plane, empty_fraction, measure_plane, sharpness
from cellvim.ingest.sources import ImagePart
from cellvim.store import SourceFile
from cellvim.store.quality import Z_CHOSEN


@dataclass(frozen=True)
class Projection:
    """One channel as read.

    Attributes:
        plane: None if there is a problem.
        sources: Every file that was to go into it, also those that are damaged.
        problem: Why there is no plane, for people.
        origin: What was learned while its stack passed by; see `measure`.
    """

    plane: Plane | None
    sources: tuple[SourceFile, ...]
    problem: str | None
    origin: dict[str, float] = field(default_factory=dict)

    def measure(self) -> dict[str, float]:
        """Quality of the plane: see `measure_plane`; with the z that was chosen, if one was."""
        return {} if self.plane is None else measure_plane(self.plane) | self.origin


def read_projection(part: ChannelPlan, check: Preflight, settings: IngestSettings) -> Projection:
    """Read one channel; of several z planes only what comes of them is in memory, and the one being read."""
    stain = check.stains[part.channel]
    if part.problem:
        return Projection(None, (), f"{stain} {part.problem}")
    sources: list[SourceFile] = []
    stack = _Stack(settings, is_single=len(part.images) == 1)
    problem = None
    for number, image in enumerate(part.images):
        try:
            content = read_plane(image)
            _refuse_changed(content.pixels, check)
            sources.append(_source(image, check, stain, content.size_bytes, content.sha256))
            stack.add(content.pixels, part.depths[number] if part.depths else None)
        except DamagedImageError as error:
            # Hashed all the same, as are the other planes: the token covers all of them.
            sources.append(fingerprint_of(image, check, stain))
            problem = problem or f"{stain}: {image.name} {error.found}"
    plane = None if problem else stack.plane(check.dtype)
    return Projection(plane, tuple(sources), problem, stack.origin)


class _Stack:
    """Planes of one stack, of which two are in memory: what came of those before, and the next."""

    def __init__(self, settings: IngestSettings, *, is_single: bool) -> None:
        self.origin: dict[str, float] = {}
        # A name, not the bound method: that would be a cycle, and planes would wait for the garbage collector.
        self._way = "only" if is_single else str(settings.z)
        self._count = 0
        self._result: Plane | None = None
        self._sharpest = -1.0

    def add(self, plane: Plane, z: int | None) -> None:
        match self._way:
            case "focus":
                self._keep_sharper(plane, z)
            case "mean":
                self._sum(plane)
            case "max":
                self._keep_brighter(plane)
            case _:
                self._result = plane
        self._count += 1

    def plane(self, dtype: np.dtype[np.unsignedinteger]) -> Plane | None:
        if self._result is None or self._result.dtype == dtype:
            return self._result
        mean: Plane = np.rint(self._result / self._count).astype(dtype)
        return mean

    def _keep_sharper(self, plane: Plane, z: int | None) -> None:
        found = sharpness(plane)
        # Of planes equally sharp the lowest stays: they come in order of z.
        if found > self._sharpest:
            self._result, self._sharpest = plane, found
            self.origin = {} if z is None else {Z_CHOSEN: z}

    def _keep_brighter(self, plane: Plane) -> None:
        self._result = plane if self._result is None else np.maximum(self._result, plane)
        self._note_empty(plane)

    def _sum(self, plane: Plane) -> None:
        # 65,537 planes of 16 bits fit.
        self._result = plane.astype(np.uint32) if self._result is None else self._result + plane
        self._note_empty(plane)

    def _note_empty(self, plane: Plane) -> None:
        """A projection would hide what one of its planes has lost."""
        self.origin[EMPTY] = max(self.origin.get(EMPTY, 0.0), empty_fraction(plane))


def fingerprint_of(image: ImagePart, check: Preflight, stain: str) -> SourceFile:
    """Hash a source file, be it damaged."""
    try:
        size, sha256 = fingerprint(image)
    except DamagedImageError:
        size, sha256 = 0, ""
    return _source(image, check, stain, size, sha256)


def _refuse_changed(plane: Plane, check: Preflight) -> None:
    if plane.shape != check.shape or plane.dtype != check.dtype:
        reason = "changed since it was checked"
        raise DamagedImageError(reason)


def _source(image: ImagePart, check: Preflight, stain: str, size: int, sha256: str) -> SourceFile:
    folder = check.plate.folder
    name = image.path.relative_to(folder) if image.path.is_relative_to(folder) else Path(image.path.name)
    return SourceFile(name.as_posix(), stain, size, sha256, "/".join(map(str, image.part)))
