"""Where wells with a dose lie beside the negative controls: what the panel and the section of doses share."""

import polars as pl

from cellvim.evaluate.report.wording import rounded

BAND = (0.05, 0.95)


def control_band(wells: pl.DataFrame | None) -> dict[str, float | None] | None:
    """Where the middle 90 % of the negative controls lie; None if none has a place.

    Args:
        wells: The table `dose_wells` of one profile table.
    """
    if wells is None:
        return None
    is_control = (
        pl.col("Metadata_ControlType").eq_missing("negcon")
        if "Metadata_ControlType" in wells.columns
        else pl.col("compound").is_null()
    )
    places = wells.filter(is_control & pl.col("projection").is_finite())["projection"]
    if places.is_empty():
        return None
    low, high = (rounded(places.quantile(share, "linear")) for share in BAND)
    return {"low": low, "high": high}
