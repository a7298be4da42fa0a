"""What MetaXpress writes into every image: XML in the TIFF's description, one property per line."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cellvim.ingest.images.tiff import DamagedImageError, read_header
from cellvim.ingest.sources import Plane, Wavelengths, natural, some

_PROPERTY = re.compile(r'<(?:custom-)?prop id="([^"<>]{1,64})" type="[^"<>]{1,32}" value="([^"<>]{0,200})"')
_MICROMETRES = frozenset({"um", "µm", "μm", "micron", "microns"})
# Headers looked at for one plate: a sample of each channel, step and time point.
_MOST_HEADERS = 512


@dataclass(frozen=True)
class PlaneInfo:
    """The properties of one image that we use; empty for images of other software.

    Attributes:
        stain: The name of the wavelength.
        pixel_size_um: Width and height of a pixel.
        emission_nm: Centre of the emission.
        acquired: ISO 8601, local time of the instrument without a zone.
        z: Number of the z step at which the image was taken; None if it does not say.
        t: Number of the time point at which the image was taken; None if it does not say.
        is_projection: The instrument computed it from several z planes.
    """

    stain: str = ""
    pixel_size_um: tuple[float, float] | None = None
    emission_nm: float | None = None
    acquired: str | None = None
    z: int | None = None
    t: int | None = None
    is_projection: bool = False


def read_plane_info(path: Path) -> PlaneInfo:
    """Read what MetaXpress says about one image; nothing of an image that is damaged, as preflight reports it."""
    try:
        description = read_header(path).description
    except DamagedImageError:
        return PlaneInfo()
    found = {name: html.unescape(value).strip() for name, value in _PROPERTY.findall(description)}
    x, y = _positive(found, "spatial-calibration-x"), _positive(found, "spatial-calibration-y")
    is_calibrated = found.get("spatial-calibration-state", "on").lower() != "off"
    is_known = is_calibrated and found.get("spatial-calibration-units", "").lower() in _MICROMETRES
    return PlaneInfo(
        stain=found.get("image-name", "").removeprefix("Copy of ").strip(),
        pixel_size_um=(x, y or x) if is_known and x else None,
        emission_nm=_positive(found, "wavelength"),
        acquired=_time(found.get("acquisition-time-local", "")),
        z=_whole(found, "Z Step"),
        t=_whole(found, "Timepoint"),
        is_projection=bool(found.get("Z Projection Method")),
    )


@dataclass(frozen=True)
class Sample:
    """The headers of a plate's images, one for each channel, z step and time point.

    Attributes:
        infos: In order of the planes.
    """

    infos: Mapping[Plane, PlaneInfo]

    @property
    def stains(self) -> dict[str, str]:
        """Channel key to the name in its first image that has one."""
        stains: dict[str, str] = {}
        for plane, info in self.infos.items():
            if info.stain:
                stains.setdefault(plane.channel, info.stain)
        return stains

    @property
    def wavelengths(self) -> dict[str, Wavelengths]:
        found: dict[str, Wavelengths] = {}
        for plane, info in self.infos.items():
            if info.emission_nm:
                found.setdefault(plane.channel, Wavelengths(emission_nm=info.emission_nm))
        return found

    @property
    def acquired(self) -> str | None:
        return min((info.acquired for info in self.infos.values() if info.acquired), default=None)

    def pixel_size_um(self) -> tuple[float | None, list[str]]:
        """Side of a pixel, and a note where the images disagree about it."""
        sizes = {size for info in self.infos.values() if info.pixel_size_um for size in info.pixel_size_um}
        if not sizes:
            return None, []
        if max(sizes) > 1.001 * min(sizes):
            named = ", ".join(f"{size:g}" for size in sorted(sizes)[:4])
            return None, [f"the images name several pixel sizes ({named} um): none is recorded"]
        return next(info.pixel_size_um[0] for info in self.infos.values() if info.pixel_size_um), []

    def copies(self, names: Mapping[str, str]) -> list[str]:
        """Name steps and time points that hold an image taken at another one.

        On export, MetaXpress fills the folders of steps and time points that a channel was not imaged at.
        """
        found: dict[tuple[str, str], set[str]] = {}
        for plane, info in self.infos.items():
            for where, what in _elsewhere(plane, info):
                found.setdefault((plane.channel, what), set()).add(where)
        notes = []
        for (channel, what), folders in found.items():
            ordered = sorted(folders, key=natural)
            notes.append(f"{names.get(channel, channel)}: {some(ordered, 6)} hold {what}, copied on export")
        return notes


def sample(planes: Sequence[Plane]) -> Sample:
    """Read one header for each channel, z step and time point of a plate."""
    firsts: dict[tuple[object, ...], Plane] = {}
    for plane in planes:
        firsts.setdefault((plane.channel, plane.t, plane.z, plane.is_projection), plane)
    chosen = list(firsts.values())[:_MOST_HEADERS]
    return Sample({plane: read_plane_info(plane.path) for plane in chosen})


def _elsewhere(plane: Plane, info: PlaneInfo) -> list[tuple[str, str]]:
    """Where the image lies, and what it is, if the two differ."""
    found = []
    if plane.t is not None and info.t is not None and plane.t != info.t:
        found.append((f"TimePoint_{plane.t}", f"the image of time point {info.t}"))
    if plane.z and info.is_projection:
        found.append((f"ZStep_{plane.z}", "the projection"))
    elif plane.z and info.z is not None and plane.z != info.z:
        found.append((f"ZStep_{plane.z}", f"the image of z step {info.z}"))
    return found


def _positive(found: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(found.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < value < 1e5 else None


def _whole(found: Mapping[str, str], name: str) -> int | None:
    value = _positive(found, name)
    return int(value) if value is not None and value.is_integer() else None


def _time(text: str) -> str | None:
    for form in ("%Y%m%d %H:%M:%S.%f", "%Y%m%d %H:%M:%S"):
        try:
            return datetime.strptime(text, form).isoformat(timespec="milliseconds")
        except ValueError:
            continue
    return None
