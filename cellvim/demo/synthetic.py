"""Write synthetic plates with known truth, as MetaXpress would export them.

Every field is drawn from its own generator, keyed by (seed, plate, well, site): the same settings give the same
bytes, in whatever order and number of threads they are written.
"""

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt16
from numpy import ndarray

from cellvim.atomic import TEMPORARY_MARK, read_json, write_json, write_text
from cellvim.config import DemoSettings
from cellvim.demo.cells import CHANNELS, draw_field
from cellvim.demo.layout import PlateLayout, draw_layouts, platemap_csv
from cellvim.demo.microscope import Microscope
from cellvim.demo.phenotype import Perturbation, Phenotype, catalogue
from cellvim.errors import OutputExistsError
from cellvim.progress import progress_bar

logger = logging.getLogger(__name__)

SIDE_PX = 224
SITES = 2
PIXEL_SIZE_UM = 0.65
WRITERS = 2


@dataclass(frozen=True)
class Acquisition:
    """What the microscope takes of each well."""

    side_px: int
    """Side of the square fields."""
    sites: int
    """Fields of a well."""


@dataclass(frozen=True)
class SyntheticPlates:
    """What `write_plates` wrote, and where."""

    images: Path
    platemap: Path
    truth: Path
    layouts: tuple[PlateLayout, ...]


def write_plates(out: Path, settings: DemoSettings) -> SyntheticPlates:
    """Write `out/images/PLATE`, `out/platemap.csv` and `out/truth.json`; plates already there are kept.

    Raises:
        OutputExistsError: `out` holds plates of other settings.
    """
    return write_layouts(
        out,
        draw_layouts(settings.plates, seed=settings.seed),
        catalogue(),
        Acquisition(SIDE_PX, SITES),
        seed=settings.seed,
        overwrite=settings.overwrite,
    )


def write_layouts(
    out: Path,
    layouts: tuple[PlateLayout, ...],
    perturbations: Sequence[Perturbation],
    acquisition: Acquisition,
    *,
    seed: int,
    overwrite: bool = False,
) -> SyntheticPlates:
    """Write plates of any layout as `write_plates` does.

    Args:
        out: Folder that receives images, plate map and truth.
        layouts: What is in each well.
        perturbations: All that the layouts hold, as the truth shall list them.
        acquisition: Size and number of fields.
        seed: Decides every field, and how each plate is imaged.
        overwrite: Replace plates of other settings.

    Raises:
        OutputExistsError: `out` holds plates of other settings.
    """
    microscopes = [
        Microscope.drawn(len(CHANNELS), np.random.default_rng([seed, 2, number]))
        for number in range(len(layouts))
    ]
    written = SyntheticPlates(out / "images", out / "platemap.csv", out / "truth.json", layouts)
    truth = {
        "is_synthetic": True,
        "seed": seed,
        "channels": list(CHANNELS),
        "pixel_size_um": PIXEL_SIZE_UM,
        "side_px": acquisition.side_px,
        "sites": acquisition.sites,
        "perturbations": [perturbation.as_dict() for perturbation in perturbations],
        "plates": _imaged_as(layouts, microscopes),
    }
    _claim(written, truth, overwrite=overwrite)
    write_text(written.platemap, platemap_csv(layouts))
    for number, (layout, microscope) in enumerate(zip(layouts, microscopes, strict=True)):
        _write_plate(written.images, layout, microscope, acquisition, key=(seed, number))
    return written


def _imaged_as(layouts: Sequence[PlateLayout], microscopes: Sequence[Microscope]) -> dict[str, Any]:
    return {
        layout.name: {
            "missing_well": layout.missing,
            "exposure": list(microscope.exposure),
            "background": list(microscope.background),
            "vignette": microscope.vignette,
            "brightest_spot": list(microscope.center),
        }
        for layout, microscope in zip(layouts, microscopes, strict=True)
    }


def _claim(written: SyntheticPlates, truth: dict[str, Any], *, overwrite: bool) -> None:
    """Write the truth before the first image, so that images without it, or with another, are never reused."""
    if written.truth.is_file():
        found = read_json(written.truth)
        if {key: found.get(key) for key in truth} == truth:
            return
    if written.images.exists() or written.truth.exists():
        if not overwrite:
            raise OutputExistsError(written.truth.parent, why="holds synthetic plates of other settings")
        shutil.rmtree(written.images, ignore_errors=True)
    write_json(written.truth, truth)


def _write_plate(
    images: Path,
    layout: PlateLayout,
    microscope: Microscope,
    acquisition: Acquisition,
    *,
    key: tuple[int, int],
) -> None:
    final, building = images / layout.name, images / f"{TEMPORARY_MARK}{layout.name}"
    if final.is_dir():
        logger.info("plate %s: already written", layout.name)
        return
    shutil.rmtree(building, ignore_errors=True)
    folder = building / "TimePoint_1"
    folder.mkdir(parents=True)
    description = _htd(layout, acquisition.sites)
    for place in (building, folder):
        (place / f"{layout.name}.HTD").write_bytes(description)
    tasks = [(well, site) for well in layout.imaged for site in range(1, acquisition.sites + 1)]
    with (
        progress_bar(f"draw {layout.name}", total=len(tasks)) as advance,
        ThreadPoolExecutor(WRITERS) as pool,
    ):

        def write(task: tuple[str, int]) -> None:
            well, site = task
            position = list(layout.wells).index(well)
            pixels = _field_pixels(
                layout.wells[well].phenotype, microscope, acquisition.side_px, key=(*key, position, site)
            )
            _write_planes(folder, layout.name, f"{well}_s{site}", pixels)

        for _ in pool.map(write, tasks):
            advance()
    building.rename(final)
    logger.info("plate %s: %d wells x %d sites written", layout.name, len(layout.imaged), acquisition.sites)


def _write_planes(folder: Path, plate: str, field: str, pixels: UInt16[ndarray, "channel y x"]) -> None:
    for wave, plane in enumerate(pixels, start=1):
        tifffile.imwrite(
            folder / f"{plate}_{field}_w{wave}.TIF",
            plane,
            description=_plane_description(plate, wave),
            metadata=None,
            software="cellvim demo",
        )


def _field_pixels(
    phenotype: Phenotype, microscope: Microscope, side_px: int, *, key: tuple[int, int, int, int]
) -> UInt16[ndarray, "channel y x"]:
    """Draw one field; wells of one perturbation differ a little in staining and in how many cells grew."""
    seed, plate, position, site = key
    of_well = np.random.default_rng([seed, 3, plate, position])
    stain = of_well.lognormal(0.0, 0.05, (len(CHANNELS), 1, 1)).astype(np.float32)
    cells = phenotype.cells_per_field * float(of_well.lognormal(0.0, 0.10))
    of_field = np.random.default_rng([seed, 4, plate, position, site])
    stains = draw_field(replace(phenotype, cells_per_field=cells), side_px=side_px, generator=of_field)
    return microscope.image(stains * stain, of_field)


def _htd(layout: PlateLayout, sites: int) -> bytes:
    """Describe the plate as MetaXpress does: which wells and sites were imaged, and the name of each wave."""
    lines = [
        '"HTSInfoFile", Version 1.0',
        '"Description", "cellvim demo: SYNTHETIC images"',
        '"PlateType", 6',
    ]
    lines += ['"TimePoints", 1', '"ZSeries", FALSE', '"ZSteps", 1', '"ZProjection", FALSE']
    lines += ['"XWells", 12', '"YWells", 8']
    for number, row in enumerate("ABCDEFGH", start=1):
        chosen = ("TRUE" if f"{row}{column:02d}" in layout.imaged else "FALSE" for column in range(1, 13))
        lines.append(f'"WellsSelection{number}", {", ".join(chosen)}')
    lines += ['"Sites", TRUE', f'"XSites", {sites}', '"YSites", 1']
    lines += [f'"SiteSelection1", {", ".join(["TRUE"] * sites)}']
    lines += ['"Waves", TRUE', f'"NWavelengths", {len(CHANNELS)}']
    lines += [f'"WaveName{wave}", "{name}"' for wave, name in enumerate(CHANNELS, start=1)]
    lines += [f'"WaveCollect{wave}", 1' for wave in range(1, len(CHANNELS) + 1)]
    lines += ['"EndFile"', ""]
    return "\r\n".join(lines).encode("ascii")


def _plane_description(plate: str, wave: int) -> str:
    return (
        '<MetaData>\n<prop id="ApplicationName" type="string" value="MetaMorph"/>\n<PlaneInfo>\n'
        f'<prop id="image-name" type="string" value="{plate} {CHANNELS[wave - 1]} (synthetic)"/>\n'
        '<prop id="spatial-calibration-state" type="bool" value="on"/>\n'
        f'<prop id="spatial-calibration-x" type="float" value="{PIXEL_SIZE_UM}"/>\n'
        f'<prop id="spatial-calibration-y" type="float" value="{PIXEL_SIZE_UM}"/>\n'
        '<prop id="spatial-calibration-units" type="string" value="um"/>\n</PlaneInfo>\n</MetaData>'
    )
