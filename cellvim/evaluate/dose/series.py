"""Which wells got which dose of which compound."""

import polars as pl

from cellvim.evaluate.screen import NAMED_DOSE, Screen, first_telling
from cellvim.profiles.schema import METADATA_PREFIX, PERTURBATION, PLATE, WELL

UNIT_NAMES = (
    "Metadata_DoseUnit", "Metadata_Dose_Unit", "Metadata_dose_unit", "Metadata_Unit", "Metadata_unit", "Metadata_Units",
    "Metadata_ConcentrationUnit", "Metadata_Concentration_Unit", "Metadata_pert_dose_unit",
)  # fmt: skip
# Doses that agree to so many digits are one dose: plates write 3.3333 and 3.33.
DIGITS = 3
SHORT_AMOUNTS = {f"{prefix}mole{s}": f"{prefix}mol" for prefix in ("", "m", "u", "n", "p") for s in ("", "s")}
SHORT_VOLUMES = {"liter": "L", "litre": "L", "l": "L", "ml": "mL"}
MOLAR = {"M": 1.0, "mM": 1e-3, "uM": 1e-6, "\u00b5M": 1e-6, "\u03bcM": 1e-6, "nM": 1e-9, "pM": 1e-12}


def dosed_wells(screen: Screen) -> pl.DataFrame:
    """List the wells that got a dose of a compound, positive controls among them, negative controls not.

    The dose is taken from the dose column, else from a name like ``drug@0.5 uM``, and rounded to three digits.
    Where the wells of a compound have several molar units, its commonest one is used for all; a well whose unit
    cannot be converted is left out.

    Returns:
        `well` (row of the screen), `Metadata_Plate, Metadata_Well, Metadata_Perturbation, compound, dose, unit`, in
        the order of the table.
    """
    metadata = screen.raw.metadata
    name = pl.col(PERTURBATION).cast(pl.String)
    level, unit = (name.str.extract(NAMED_DOSE, group) for group in (2, 3))
    wells = metadata.select(
        pl.int_range(pl.len()).alias("well"),
        PLATE,
        WELL,
        PERTURBATION,
        screen.compounds.alias("compound"),
        pl.coalesce(pl.Series(screen.doses).fill_nan(None), level.cast(pl.Float64, strict=False)).alias(
            "dose"
        ),
        pl.coalesce(unit_of_column(screen), unit.replace("", None), unit_in_name(screen)).alias("unit"),
    ).filter(pl.Series(screen.wells.is_treated) & pl.col("dose").is_finite() & (pl.col("dose") > 0))
    return in_one_unit(wells).with_columns(pl.col("dose").round_sig_figs(DIGITS))


def unit_of_column(screen: Screen) -> pl.Expr:
    column = first_telling(UNIT_NAMES, screen.raw.metadata)
    if column is None:
        return pl.lit(None, dtype=pl.String)
    return pl.col(column).cast(pl.String).str.strip_chars().replace("", None)


def unit_in_name(screen: Screen) -> pl.Expr:
    """Unit that the dose column has in its name: ``mmol/L`` of a column ``Metadata_mmoles_per_liter``."""
    name = (screen.dose_column or "").removeprefix(METADATA_PREFIX)
    amount, per, volume = name.partition("_per_")
    short = {**SHORT_AMOUNTS, **SHORT_VOLUMES}
    unit = "/".join(short.get(part.lower(), part) for part in (amount, volume))
    return pl.lit(unit if per else None, dtype=pl.String)


def in_one_unit(wells: pl.DataFrame) -> pl.DataFrame:
    """Express the doses of each compound in its commonest unit."""
    common = (
        wells.group_by("compound", "unit")
        .len()
        .sort(["compound", "len", "unit"], descending=[False, True, False])
        .group_by("compound", maintain_order=True)
        .agg(pl.col("unit").first().alias("common"))
    )
    wells = wells.join(common, on="compound", how="left", maintain_order="left")
    ratio = [
        pl.col(column).replace_strict(MOLAR, default=None, return_dtype=pl.Float64)
        for column in ("unit", "common")
    ]
    factor = pl.when(pl.col("unit").eq_missing(pl.col("common"))).then(1.0).otherwise(ratio[0] / ratio[1])
    return (
        wells.with_columns(pl.col("dose") * factor, pl.col("common").alias("unit"))
        .drop("common")
        .filter(pl.col("dose").is_not_null())
    )
