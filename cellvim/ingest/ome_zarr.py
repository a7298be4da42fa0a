"""OME-Zarr HCS plates, versions 0.4 and 0.5."""

from cellvim.config import IngestSettings
from cellvim.ingest.sources import Source, SourcePlate


class OmeZarrReader:
    def recognise(self, source: Source, settings: IngestSettings) -> str | None:  # noqa: ARG002 - the protocol
        return None

    def read(self, source: Source, settings: IngestSettings) -> list[SourcePlate]:
        raise NotImplementedError
