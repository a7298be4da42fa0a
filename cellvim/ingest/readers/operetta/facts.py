"""What a Harmony index says about the plate as a whole: stains, wavelengths, pixel size, time and wells.

All of it may be absent, or said in several ways at once; what cannot be kept goes to the notes.
"""

import math
from collections.abc import Sequence
from datetime import datetime

from cellvim.ingest.readers.operetta.index import Index, number_of
from cellvim.ingest.sources import Wavelengths, some
from cellvim.store import well_name

# One nanometre to one millimetre: what lies outside is no pixel of a microscope.
_PIXEL_UM = (1e-3, 1e3)
# Unicode has two letters for micro.
_UM_PER_UNIT = {"": 1e6, "m": 1e6, "mm": 1e3, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0, "nm": 1e-3}


def stains_of(index: Index, notes: list[str]) -> dict[str, str]:
    """Channel to the name that the index gives it."""
    stains = {}
    for channel in index.channels:
        names = index.values(channel, "ChannelName")
        if names:
            stains[channel] = names[0]
        if len(names) > 1:
            notes.append(f"channel {channel} has {len(names)} names: {some(names)}; the first is kept")
    return stains


def wavelengths_of(index: Index) -> dict[str, Wavelengths]:
    """Channel to its wavelengths, where the index has any; it says 0 for what does not apply."""
    found = {}
    for channel in index.channels:
        names = ("MainExcitationWavelength", "MainEmissionWavelength")
        excitation, emission = (_nanometres(index.values(channel, name)) for name in names)
        if excitation or emission:
            found[channel] = Wavelengths(excitation, emission)
    return found


def pixel_size_of(index: Index, notes: list[str]) -> float | None:
    """Side of a pixel in micrometres, if all images agree on one; else noted and None."""
    names = ("ImageResolutionX", "ImageResolutionY")
    texts = {text: None for c in index.channels for name in names for text in index.values(c, name)}
    sizes = {text: _micrometres(text) for text in texts}
    wrong = [text for text, size in sizes.items() if size is None]
    if wrong:
        notes.append(f"the index has a pixel size that is none: {some(wrong)}")
        return None
    distinct = sorted({round(size, 9) for size in sizes.values() if size})
    # The last digits differ between images of one camera.
    if distinct and distinct[-1] > distinct[0] * (1 + 1e-6):
        notes.append(f"the index has several pixel sizes: {some(distinct)} um; none is kept")
        return None
    return distinct[0] if distinct else None


def start_of(index: Index, notes: list[str]) -> str | None:
    """When the measurement began, ISO 8601."""
    if not index.started:
        return None
    try:
        # Harmony writes seven digits of a second, of which six are kept.
        return datetime.fromisoformat(index.started).isoformat()
    except ValueError:
        notes.append(f"MeasurementStartTime {index.started!r} is no date")
        return None


def declared_wells_of(index: Index, notes: list[str]) -> tuple[str, ...]:
    """Wells chosen for the measurement, with or without images."""
    wells: dict[str, None] = {}
    wrong = []
    for text in index.declared:
        try:
            row, column = text[:2], text[2:] if len(text) == 4 else ""
            wells[well_name(number_of(row), number_of(column))] = None
        except ValueError:
            wrong.append(text)
    # Columbus numbers its wells in a way of its own, with six digits.
    if wrong and not all(len(text) == 6 for text in wrong):
        notes.append(f"the index declares wells that are none: {some(wrong)}")
    return tuple(wells)


def _micrometres(text: str) -> float | None:
    number, _, unit = text.partition(" ")
    try:
        size = float(number) * _UM_PER_UNIT[unit]
    except (ValueError, LookupError):
        return None
    return size if _PIXEL_UM[0] <= size <= _PIXEL_UM[1] else None


def _nanometres(texts: Sequence[str]) -> float | None:
    try:
        value = float(texts[0])
    except (ValueError, LookupError):
        return None
    return value if 0 < value < math.inf else None
