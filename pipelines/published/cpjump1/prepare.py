"""From CPJUMP1's plate maps, perturbations and plates to one plate map with the genes that each well is about."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from cellvim.errors import InputError
from pipelines.published.study_folder import StudyTables
from pipelines.published.tables import Row, Tables, only_file, read_table, tables_below

MODALITIES = ("compound", "crispr", "orf")
PLATE_FACTS = {
    "Perturbation": "Metadata_Modality",
    "Cell_type": "Metadata_CellType",
    "Time": "Metadata_Hours",
    "Density": "Metadata_SeedingDensity",
    "Antibiotics": "Metadata_Antibiotics",
    "Cell_line": "Metadata_CellLine",
    "Time_delay": "Metadata_ImagingDelay",
    "Anomaly": "Metadata_Anomaly",
}
"""Columns of experiment-metadata.tsv, and ours."""
_MEASUREMENT = re.compile(r"(BR\d{8}[A-F]?)__\d{4}-\d\d-\d\dT[\d_]+-Measurement\d+")
_MAP_NAME = re.compile(rf"JUMP-Target-1_({'|'.join(MODALITIES)})_platemap")


def prepare(source: Path, out: Path) -> StudyTables:  # noqa: ARG001 - every data set is asked alike
    """Make the tables of the plates whose folders are there.

    Args:
        source: Folder with barcode_platemap.csv, experiment-metadata.tsv, the plate maps and tables of JUMP-Target-1,
            and the folders of the plates, all anywhere below it.
        out: Folder of the study.

    Raises:
        NotFoundError: A table is not there.
        InputError: A table lacks a column, or a plate has an unknown plate map.
    """
    tables = tables_below(source)
    plates = {match[1]: path for path in measurements(source) if (match := _MEASUREMENT.fullmatch(path.name))}
    barcodes = read_table(
        only_file(tables, "barcode_platemap.csv"), ("Assay_Plate_Barcode", "Plate_Map_Name")
    )
    map_names = {row["Assay_Plate_Barcode"]: row["Plate_Map_Name"] for row in barcodes}
    known = {plate: folder for plate, folder in plates.items() if plate in map_names}
    facts = plate_facts(tables, list(known))
    maps = {name: perturbation_map(tables, name) for name in sorted({map_names[plate] for plate in known})}
    rows = [
        {"Metadata_Plate": plate, **well, **facts[plate]}
        for plate in sorted(known)
        for well in maps[map_names[plate]]
    ]
    return StudyTables(known, pl.DataFrame(rows, infer_schema_length=None))


def measurements(source: Path) -> list[Path]:
    """Folders as Harmony names them, without looking into them: a plate has tens of thousands of images.

    Raises:
        InputError: Two measurements of one plate.
    """
    found: list[Path] = []
    folders = [source]
    while folders:
        below = sorted(
            path for path in folders.pop().iterdir() if path.is_dir() and not path.name.startswith(".")
        )
        named = [path for path in below if _MEASUREMENT.fullmatch(path.name)]
        found += named
        folders += [path for path in below if path not in named and path.suffix != ".zarr"]
    names = [path.name.partition("__")[0] for path in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = f"{source} holds several measurements of {twice[0]}"
        raise InputError(message, hint="the batches image plates again: keep one batch per study")
    return found


def plate_facts(tables: Tables, plates: Sequence[str]) -> Mapping[str, dict[str, str]]:
    """Cell line, time and other conditions of each plate, as the first batch was imaged."""
    columns = ("Batch", "Assay_Plate_Barcode", *PLATE_FACTS)
    rows = read_table(only_file(tables, "experiment-metadata.tsv"), columns)
    facts: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["Assay_Plate_Barcode"] in plates:
            own = {ours: row[theirs] for theirs, ours in PLATE_FACTS.items()}
            facts.setdefault(row["Assay_Plate_Barcode"], own)
    missing = [plate for plate in plates if plate not in facts]
    if missing:
        found = f"experiment-metadata.tsv does not know plate {missing[0]}"
        raise InputError(found, hint="fetch experiment-metadata.tsv again")
    return facts


def perturbation_map(tables: Tables, map_name: str) -> list[dict[str, str]]:
    """What each well of a plate map got, and which genes that is about."""
    match = _MAP_NAME.fullmatch(map_name)
    if match is None:
        found = f"barcode_platemap.csv names the unknown plate map {map_name!r}"
        raise InputError(found, hint=f"known are JUMP-Target-1_NAME_platemap of {', '.join(MODALITIES)}")
    wells = read_table(_map_file(tables, map_name), ("well_position", "broad_sample"))
    about = perturbations(tables, match[1])
    return [well_facts(well, about.get(well["broad_sample"], {}), match[1]) for well in wells]


def perturbations(tables: Tables, modality: str) -> dict[str, Row]:
    """Rows of JUMP-Target's table of a modality, by sample."""
    path = only_file(tables, f"JUMP-Target-1_{modality}_metadata.tsv")
    rows = read_table(path, ("broad_sample", "pert_type", "control_type"))
    return {row["broad_sample"]: row for row in rows}


def well_facts(well: Row, sample: Mapping[str, str], modality: str) -> dict[str, str]:
    """A well's row. Without a sample it holds the solvent of compounds, or for genes nothing."""
    name = well["broad_sample"]
    untreated = ("DMSO", "negcon") if modality == "compound" else ("", "empty")
    control = sample.get("control_type", "").replace("NA", "") if name else untreated[1]
    targets = sample.get("target_list") or sample.get("target") or sample.get("gene") or ""
    return {
        "Metadata_Well": well["well_position"],
        "Metadata_Perturbation": name or untreated[0],
        "Metadata_broad_sample": name,
        "Metadata_pert_iname": sample.get("pert_iname") or (name if modality != "compound" else ""),
        "Metadata_gene": "" if control in ("negcon", "empty") else targets,
        "Metadata_pert_type": sample.get("pert_type", ""),
        "Metadata_ControlType": control,
    }


def _map_file(tables: Tables, map_name: str) -> Path:
    """The consortium's repository has plate maps as .tsv, the paper's and the bucket as .txt."""
    ending = ".txt" if f"{map_name}.txt" in tables else ".tsv"
    return only_file(tables, map_name + ending)
