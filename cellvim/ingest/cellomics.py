"""Cellomics and ArrayScan: names such as AS_09125_050116030001_D03f00d0.tif."""

from cellvim.config import IngestSettings
from cellvim.ingest.sources import Source, SourcePlate


class CellomicsReader:
    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        return None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        raise NotImplementedError
