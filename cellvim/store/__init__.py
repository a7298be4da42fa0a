"""Plates on disk: the only code that knows how they are laid out."""

from cellvim.store.inspection import describe_plate
from cellvim.store.intensity import Intensity
from cellvim.store.naming import (
    FieldKey,
    parse_well,
    safe_name,
    split_well,
    well_name,
    well_position,
)
from cellvim.store.platemap import compound_columns, name_compounds
from cellvim.store.reader import PlateReader, find_plates
from cellvim.store.records import SourceFile
from cellvim.store.verification import verify_plate
from cellvim.store.writer import PlateWriter

__all__ = [
    "FieldKey",
    "Intensity",
    "PlateReader",
    "PlateWriter",
    "SourceFile",
    "compound_columns",
    "describe_plate",
    "find_plates",
    "name_compounds",
    "parse_well",
    "safe_name",
    "split_well",
    "verify_plate",
    "well_name",
    "well_position",
]
