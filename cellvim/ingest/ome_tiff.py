"""OME-TIFF plates: OME-XML in the first page."""

from cellvim.config import IngestSettings
from cellvim.ingest.sources import Source, SourcePlate


class OmeTiffReader:
    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        return None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        raise NotImplementedError
