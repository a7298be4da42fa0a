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
from cellvim.demo.phenotype import Phenotype, catalogue
from cellvim.errors import OutputExistsError
from cellvim.progress import progress_bar

logger = logging.getLogger(__name__)

SIDE_PX = 224
SITES = 2
PIXEL_SIZE_UM = 0.65
WRITERS = 2


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
    layouts = draw_layouts(settings.plates, seed=settings.seed)
    microscopes = [
        Microscope.drawn(len(CHANNELS), np.random.default_rng([settings.seed, 2, number]))
        for number in range(settings.plates)
    ]
    written = SyntheticPlates(out / "images", out / "platemap.csv", out / "truth.json", layouts)
    _claim(written, _truth(settings, layouts, microscopes), overwrite=settings.overwrite)
    write_text(written.platemap, platemap_csv(layouts))
    for number, (layout, microscope) in enumerate(zip(layouts, microscopes, strict=True)):
        _write_plate(written.images, layout, microscope, key=(settings.seed, number))
    return written


def _truth(
    settings: DemoSettings, layouts: Sequence[PlateLayout], microscopes: Sequence[Microscope]
) -> dict[str, Any]:
    plates = {
        layout.name: {
            "missing_well": layout.missing,
            "exposure": list(microscope.exposure),
            "background": list(microscope.background),
            "vignette": microscope.vignette,
            "brightest_spot": list(microscope.center),
        }
        for layout, microscope in zip(layouts, microscopes, strict=True)
    }
    return {
        "is_synthetic": True,
        "seed": settings.seed,
        "channels": list(CHANNELS),
        "pixel_size_um": PIXEL_SIZE_UM,
        "side_px": SIDE_PX,
        "sites": SITES,
        "perturbations": [perturbation.as_dict() for perturbation in catalogue()],
        "plates": plates,
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


def _write_plate(images: Path, layout: PlateLayout, microscope: Microscope, *, key: tuple[int, int]) -> None:
    final, building = images / layout.name, images / f"{TEMPORARY_MARK}{layout.name}"
    if final.is_dir():
        logger.info("plate %s: already written", layout.name)
        return
    shutil.rmtree(building, ignore_errors=True)
    folder = building / "TimePoint_1"
    folder.mkdir(parents=True)
    description = _htd(layout)
    for place in (building, folder):
        (place / f"{layout.name}.HTD").write_bytes(description)
    tasks = [(well, site) for well in layout.imaged for site in range(1, SITES + 1)]
    with (
        progress_bar(f"draw {layout.name}", total=len(tasks)) as advance,
        ThreadPoolExecutor(WRITERS) as pool,
    ):

        def write(task: tuple[str, int]) -> None:
            _write_field(folder, layout, microscope, field=task, key=key)

        for _ in pool.map(write, tasks):
            advance()
    building.rename(final)
    logger.info("plate %s: %d wells x %d sites written", layout.name, len(layout.imaged), SITES)


def _write_field(
    folder: Path, layout: PlateLayout, microscope: Microscope, *, field: tuple[str, int], key: tuple[int, int]
) -> None:
    well, site = field
    position = list(layout.wells).index(well)
    pixels = _field_pixels(layout.wells[well].phenotype, microscope, key=(*key, position, site))
    for wave, plane in enumerate(pixels, start=1):
        path = folder / f"{layout.name}_{well}_s{site}_w{wave}.TIF"
        tifffile.imwrite(
            path,
            plane,
            description=_plane_description(layout.name, wave),
            metadata=None,
            software="cellvim demo",
        )


def _field_pixels(
    phenotype: Phenotype, microscope: Microscope, *, key: tuple[int, int, int, int]
) -> UInt16[ndarray, "channel y x"]:
    """Draw one field; wells of one perturbation differ a little in staining and in how many cells grew."""
    seed, plate, position, site = key
    of_well = np.random.default_rng([seed, 3, plate, position])
    stain = of_well.lognormal(0.0, 0.05, (len(CHANNELS), 1, 1)).astype(np.float32)
    cells = phenotype.cells_per_field * float(of_well.lognormal(0.0, 0.10))
    of_field = np.random.default_rng([seed, 4, plate, position, site])
    stains = draw_field(replace(phenotype, cells_per_field=cells), side_px=SIDE_PX, generator=of_field)
    return microscope.image(stains * stain, of_field)


def _htd(layout: PlateLayout) -> bytes:
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
    lines += ['"Sites", TRUE', f'"XSites", {SITES}', '"YSites", 1']
    lines += [f'"SiteSelection1", {", ".join(["TRUE"] * SITES)}']
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
