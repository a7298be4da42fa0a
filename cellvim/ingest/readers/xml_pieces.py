"""XML in pieces, with an end to tags that have none: expat reads an unfinished tag again with every piece."""

from collections.abc import Iterator
from typing import IO, Any, BinaryIO, cast

from defusedxml.ElementTree import XMLParser
from defusedxml.ElementTree import iterparse as _iterparse

# No vendor writes one of a tenth of that; at this length, reading it again has cost some tens of milliseconds.
MOST_TAG_BYTES = 1 << 20
MOST_DEPTH = 64


class Pieces:
    """A file as a parser should be fed with it.

    Args:
        file: XML, at its beginning.
        expat: The parser below whatever is fed; it knows how far it has come.
    """

    def __init__(self, file: BinaryIO, expat: Any) -> None:
        self._file = file
        self._expat = expat
        self._fed = 0

    def read(self, size: int) -> bytes:
        """Read the next piece.

        Raises:
            ValueError: For so long the parser has found no end of the tag that it is at.
        """
        if self._fed - max(0, self._expat.CurrentByteIndex) > MOST_TAG_BYTES:
            message = f"a tag is longer than {MOST_TAG_BYTES >> 20} MiB"
            raise ValueError(message)
        piece = self._file.read(size)
        self._fed += len(piece)
        return piece


def iterparse(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Stream the elements of a file that may be hostile, each at its ``start`` and its ``end``.

    Raises:
        ParseError: Not XML.
        ValueError: A document type, an entity, a tag without an end, or elements nested too deeply.
    """
    parser, depth = XMLParser(forbid_dtd=True), 0
    for event, element in _iterparse(
        cast("IO[bytes]", Pieces(file, parser.parser)), ("start", "end"), parser
    ):
        depth += 1 if event == "start" else -1
        if depth > MOST_DEPTH:
            message = f"elements are nested too deeply, more than {MOST_DEPTH} in each other"
            raise ValueError(message)
        yield event, element
