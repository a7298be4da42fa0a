"""One row of features per well, field or crop, streamed from plates."""

from cellvim.embed.run import EmbedSummary, embed_plates, require_complete

__all__ = ["EmbedSummary", "embed_plates", "require_complete"]
