"""From BBBC022's table of images to a plate map, and a load_data.csv per plate.

Every image of every plate is called IXMtest_WELL_SITE_WAVE, and each wave of a plate is a folder of its own: the plate
is known by the folder, or by the table.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from pipelines.published.study_folder import StudyTables, images_by_name, load_data_table
from pipelines.published.tables import Row, Tables, only_file, read_table, rows_by_plate, tables_below

STAINS = {"OrigHoechst": "DNA", "OrigER": "ER", "OrigSyto": "RNA", "OrigPh_golgi": "AGP", "OrigMito": "Mito"}
"""Their names of the channels, in the order of their waves w1 to w5, and ours."""
MECHANISMS = "BBBC022_MOA_MATCHES_official.csv"
PLATE, WELL, SITE = "Image_Metadata_PlateID", "Image_Metadata_CPD_WELL_POSITION", "Image_Metadata_Site"
ROLE, SAMPLE, NAME = (
    "Image_Metadata_ASSAY_WELL_ROLE",
    "Image_Metadata_BROAD_ID",
    "Image_Metadata_SOURCE_COMPOUND_NAME",
)
MAP, STOCK = "Image_Metadata_CPD_PLATE_MAP_NAME", "Image_Metadata_CPD_MMOL_CONC"
IMAGE_COLUMNS = (
    *(f"Image_FileName_{channel}" for channel in STAINS),
    PLATE,
    WELL,
    SITE,
    ROLE,
    SAMPLE,
    NAME,
    MAP,
    STOCK,
)
ROLES = {"mock": "negcon", "compound": ""}
_WAVE_FOLDER = re.compile(r".*?(\d{5})w[1-5]")
_COMPOUND = re.compile(r"(BRD-[AK]\d{8})\b")


def prepare(source: Path, out: Path) -> StudyTables:
    """Make the tables of the plates whose images are there.

    Args:
        source: Folder with BBBC022_v1_image.csv, the unzipped folders of images, and the table of mechanisms if there
            is to be one.
        out: Folder of the study.

    Raises:
        NotFoundError: The table of images is not there.
        InputError: A table lacks a column, or a role of a well is unknown.
    """
    tables = tables_below(source)
    rows = read_table(only_file(tables, "BBBC022_v1_image.csv"), IMAGE_COLUMNS)
    mechanisms = read_mechanisms(tables)
    images = images_by_name(source)
    by_file = {name: path for (_, name), path in images.items()}
    present = {match[1] for folder, _ in images if (match := _WAVE_FOLDER.fullmatch(folder))}
    by_plate = rows_by_plate(rows, PLATE, present)
    return StudyTables(
        {plate: out / "load_data" / f"{plate}.csv" for plate in by_plate},
        pl.concat([plate_map(own, mechanisms) for own in by_plate.values()]) if by_plate else pl.DataFrame(),
        {
            plate: load_data_table([field_images(row, by_file) for row in own])
            for plate, own in by_plate.items()
        },
    )


def read_mechanisms(tables: Tables) -> dict[str, str]:
    """Mechanisms by compound, ``BRD-K98763141``; several are separated by ``|``. Nothing if there is no such table."""
    if MECHANISMS not in tables:
        return {}
    rows = read_table(only_file(tables, MECHANISMS), ("Var1", "Metadata_moa.x"))
    return {row["Var1"]: row["Metadata_moa.x"] for row in rows}


def plate_map(rows: Iterable[Row], mechanisms: Mapping[str, str]) -> pl.DataFrame:
    """One row per well of a plate."""
    wells = {row[WELL]: row for row in rows}
    return pl.DataFrame([well_facts(row, mechanisms) for _, row in sorted(wells.items())])


def well_facts(row: Row, mechanisms: Mapping[str, str]) -> dict[str, str]:
    if row[ROLE] not in ROLES:
        found = f"plate {row[PLATE]} well {row[WELL]} has the unknown role {row[ROLE]!r}"
        raise InputError(found, hint=f"known are {' and '.join(ROLES)}")
    is_control = ROLES[row[ROLE]] == "negcon"
    compound = _COMPOUND.match(row[SAMPLE])
    return {
        "Metadata_Plate": row[PLATE],
        "Metadata_Well": row[WELL],
        "Metadata_Perturbation": "DMSO" if is_control else row[SAMPLE],
        "Metadata_pert_iname": "" if is_control else row[NAME].strip().lower(),
        "Metadata_ControlType": ROLES[row[ROLE]],
        "Metadata_moa": mechanisms.get(compound[1], "") if compound else "",
        "Metadata_PlateMap": row[MAP],
        "Metadata_StockMillimolar": row[STOCK],
    }


def field_images(row: Row, images: Mapping[str, Path]) -> dict[str, str | int]:
    """Where the five images of a field are. Those that are not there keep the name they should have."""
    paths = {
        stain: images.get(
            row[f"Image_FileName_{channel}"], Path(row[PLATE], row[f"Image_FileName_{channel}"])
        )
        for channel, stain in STAINS.items()
    }
    return {
        "Metadata_Plate": row[PLATE],
        "Metadata_Well": row[WELL],
        "Metadata_Site": int(row[SITE]),
        **{f"PathName_{stain}": str(path.parent) for stain, path in paths.items()},
        **{f"FileName_{stain}": path.name for stain, path in paths.items()},
    }
