"""Ingest: from vendor folders of TIFF images to OME-Zarr plates."""

from cellvim.ingest.stage import ingest_plates
from cellvim.ingest.summary import FieldsFailedError, IngestSummary, PlateResult

__all__ = ["FieldsFailedError", "IngestSummary", "PlateResult", "ingest_plates"]
