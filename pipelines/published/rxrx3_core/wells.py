"""What RxRx3-core's table of wells says, as a plate map."""

from collections.abc import Collection

import polars as pl

from pipelines.published.tables import Row, Tables, only_file, read_table

TABLE = "metadata_rxrx3_core.csv"
COLUMNS = (
    "well_id",
    "experiment_name",
    "plate",
    "address",
    "gene",
    "treatment",
    "SMILES",
    "concentration",
    "perturbation_type",
    "cell_type",
)
UNTREATED, GUIDE_CONTROL = "EMPTY_control", "CRISPR_control"


def read_wells(
    tables: Tables, experiments: Collection[str] = (), plates: Collection[int] = ()
) -> pl.DataFrame:
    """Read the wells of some experiments and plates, all of them if none are named.

    Returns:
        A plate map with `Metadata_WellId`, the publishers' name of each well. A gene's wells are one perturbation,
        whatever the guide; a compound's are one per dose. The untreated are the negative controls. Guides without a
        target, on plates of compounds, take no part.
    """
    rows = read_table(only_file(tables, TABLE), COLUMNS)
    chosen = [
        row
        for row in rows
        if (not experiments or row["experiment_name"] in experiments)
        and (not plates or int(row["plate"]) in plates)
    ]
    return pl.DataFrame([well_facts(row) for row in chosen], infer_schema_length=None)


def well_facts(row: Row) -> dict[str, object]:
    is_compound = row["perturbation_type"] == "COMPOUND"
    treatment = row["treatment"]
    dose = float(row["concentration"]) if row["concentration"] else None
    if treatment == UNTREATED:
        perturbation, control = UNTREATED, "negcon"
    elif treatment == GUIDE_CONTROL:
        perturbation, control = "", "empty"
    elif is_compound:
        perturbation, control = f"{treatment}@{dose:g} uM" if dose is not None else treatment, ""
    else:
        perturbation, control = row["gene"], ""
    is_treated = control == ""
    return {
        "Metadata_Plate": f"{row['experiment_name']}_{row['plate']}",
        "Metadata_Well": row["address"],
        "Metadata_Perturbation": perturbation,
        "Metadata_ControlType": control,
        "Metadata_Compound": treatment if is_treated and is_compound else "",
        "Metadata_Concentration": dose if is_treated and is_compound else None,
        "Metadata_Gene": row["gene"] if is_treated and not is_compound else "",
        "Metadata_Guide": treatment if is_treated and not is_compound else "",
        "Metadata_SMILES": row["SMILES"],
        "Metadata_Batch": row["experiment_name"],
        "Metadata_Modality": row["perturbation_type"],
        "Metadata_CellType": row["cell_type"],
        "Metadata_WellId": row["well_id"],
    }
