"""Profile tables: read, annotate, aggregate to wells, normalise on controls."""

from cellvim.profiles.aggregate import aggregate
from cellvim.profiles.annotate import annotate, require_column
from cellvim.profiles.consensus import REPLICATES, consensus
from cellvim.profiles.fit_file import fit_bytes, read_fit, write_fit
from cellvim.profiles.fitted import FittedNormalization
from cellvim.profiles.normalize import control_folds, fit_normalization, normalize, plate_codes
from cellvim.profiles.reading import read_profiles, read_together
from cellvim.profiles.schema import (
    PROVENANCE_KEY,
    Profiles,
    table_files,
    thumbnails_files,
    thumbnails_path,
    without_pictures,
)
from cellvim.profiles.sphere import Sphere, fit_sphere

__all__ = [
    "PROVENANCE_KEY",
    "REPLICATES",
    "FittedNormalization",
    "Profiles",
    "Sphere",
    "aggregate",
    "annotate",
    "consensus",
    "control_folds",
    "fit_bytes",
    "fit_normalization",
    "fit_sphere",
    "normalize",
    "plate_codes",
    "read_fit",
    "read_profiles",
    "read_together",
    "require_column",
    "table_files",
    "thumbnails_files",
    "thumbnails_path",
    "without_pictures",
    "write_fit",
]
