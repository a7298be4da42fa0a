"""From BBBC021's three tables to a plate map, and a load_data.csv per plate.

Folders alone do not do: of weeks 1 to 3 and 9, say, all plates' files begin with the same date and not with the plate,
and the mechanisms are given by compound and concentration.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import polars as pl

from cellvim.errors import InputError
from pipelines.published.study_folder import StudyTables, images_by_name, load_data_table
from pipelines.published.tables import Row, only_file, read_table, rows_by_plate, tables_below

STAINS = {"DAPI": "DNA", "Tubulin": "Tubulin", "Actin": "Actin"}
"""Their names of the channels, and ours."""
CONTROL = "DMSO"
PLATE, WELL = "Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI"
COMPOUND, CONCENTRATION = "Image_Metadata_Compound", "Image_Metadata_Concentration"
IMAGE_COLUMNS = (
    *(f"Image_{kind}_{channel}" for channel in STAINS for kind in ("FileName", "PathName")),
    *(PLATE, WELL, "Replicate", COMPOUND, CONCENTRATION),
)
_SITE = re.compile(r"_s(\d+)_w\d")

Mechanisms = Mapping[tuple[str, float], str]


def prepare(source: Path, out: Path) -> StudyTables:
    """Make the tables of the plates whose images are there.

    Args:
        source: Folder with BBBC021_v1_image.csv, BBBC021_v1_moa.csv, and below it the unzipped plates.
        out: Folder of the study.

    Raises:
        NotFoundError: A table is not there.
        InputError: A table lacks a column, or a cell is no number.
    """
    tables = tables_below(source)
    rows = read_table(only_file(tables, "BBBC021_v1_image.csv"), IMAGE_COLUMNS)
    mechanisms = read_mechanisms(only_file(tables, "BBBC021_v1_moa.csv"))
    images = images_by_name(source)
    present = {folder for folder, _ in images}
    by_plate = rows_by_plate(rows, PLATE, present)
    return StudyTables(
        {plate: out / "load_data" / f"{plate}.csv" for plate in by_plate},
        pl.concat([plate_map(own, mechanisms) for own in by_plate.values()]) if by_plate else pl.DataFrame(),
        {plate: load_data(own, images) for plate, own in by_plate.items()},
    )


def read_mechanisms(path: Path) -> Mechanisms:
    """Mechanism by compound and concentration in uM; DMSO, which the table lists as its own mechanism, has none."""
    rows = read_table(path, ("compound", "concentration", "moa"))
    return {
        (row["compound"], amount(row["concentration"], path)): row["moa"]
        for row in rows
        if row["compound"] != CONTROL
    }


def plate_map(rows: Iterable[Row], mechanisms: Mechanisms) -> pl.DataFrame:
    """One row per well of a plate."""
    wells = {row[WELL]: row for row in rows}
    return pl.DataFrame([well_facts(row, mechanisms) for _, row in sorted(wells.items())])


def well_facts(row: Row, mechanisms: Mechanisms) -> dict[str, object]:
    compound, concentration = row[COMPOUND], amount(row[CONCENTRATION], row[PLATE])
    return {
        "Metadata_Plate": row[PLATE],
        "Metadata_Well": row[WELL],
        "Metadata_Compound": compound,
        "Metadata_Concentration": concentration,
        "Metadata_ConcentrationUnit": "uM",
        "Metadata_ControlType": "negcon" if compound == CONTROL else "",
        "Metadata_moa": mechanisms.get((compound, concentration), ""),
        "Metadata_Batch": row[PLATE].partition("_")[0],
        "Metadata_Replicate": row["Replicate"],
    }


def load_data(rows: Iterable[Row], images: Mapping[tuple[str, str], Path]) -> pl.DataFrame:
    """One row per field: where its three images are. Those that are not there keep the name they should have."""
    return load_data_table([field_images(row, images) for row in rows])


def field_images(row: Row, images: Mapping[tuple[str, str], Path]) -> dict[str, str | int]:
    name = row["Image_FileName_DAPI"]
    site = _SITE.search(name)
    if site is None:
        found = f"{name} does not say which site it is"
        raise InputError(found, hint="fetch BBBC021_v1_image.csv again")
    paths = {
        stain: images.get(
            (row[PLATE], row[f"Image_FileName_{channel}"]),
            Path(PurePosixPath(row[f"Image_PathName_{channel}"]), row[f"Image_FileName_{channel}"]),
        )
        for channel, stain in STAINS.items()
    }
    return {
        "Metadata_Plate": row[PLATE],
        "Metadata_Well": row[WELL],
        "Metadata_Site": int(site[1]),
        **{f"PathName_{stain}": str(path.parent) for stain, path in paths.items()},
        **{f"FileName_{stain}": path.name for stain, path in paths.items()},
    }


def amount(text: str, place: object) -> float:
    try:
        return float(text)
    except ValueError:
        found = f"{place}: {text!r} is no concentration"
        raise InputError(found, hint="fetch the table again") from None
