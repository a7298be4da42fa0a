"""Rows of a CSV from a stranger, one at a time: memory stays the same however long the file is."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from cellvim.errors import InputError

MOST_BYTES = 4 << 30
MOST_LINE = 1 << 20
_GZIP = b"\x1f\x8b"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HINT = "copy it again from where it was made"


def read_head(path: Path) -> list[str]:
    """Names of the columns, from the first line alone; nothing if it cannot be read."""
    try:
        with _open(path) as file:
            line = file.readline(MOST_LINE)
            return _split(line, _delimiter(line))
    except (OSError, EOFError, ValueError, zlib.error, csv.Error):
        return []


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which a row ends and its cells, the header first; empty lines are left out.

    Comma, semicolon or tab; UTF-8 or, with its mark, UTF-16; gzip by content, whatever the name.

    Raises:
        InputError: Not a table, or larger than any plate's.
    """
    try:
        with _open(path) as file:
            lines = _bounded(file, path)
            first = next(lines, "")
            reader = csv.reader(_chain(first, lines), delimiter=_delimiter(first))
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
    except (OSError, EOFError, UnicodeError, zlib.error, csv.Error) as error:
        found = f"{path} cannot be read as a table: {error}"
        raise InputError(found, hint=_HINT) from error


@contextmanager
def _open(path: Path) -> Iterator[io.TextIOWrapper]:
    with path.open("rb") as raw:
        start = raw.read(2)
        raw.seek(0)
        with gzip.open(raw) if start == _GZIP else raw as content:
            buffered = io.BufferedReader(cast("io.RawIOBase", content))
            encoding = "utf-16" if buffered.peek(2)[:2] in _UTF16 else "utf-8-sig"
            yield io.TextIOWrapper(cast("BinaryIO", buffered), encoding, errors="replace", newline="")


def _bounded(file: io.TextIOWrapper, path: Path) -> Iterator[str]:
    total = 0
    while line := file.readline(MOST_LINE):
        total += len(line)
        if len(line) >= MOST_LINE or total > MOST_BYTES:
            what = "line" if len(line) >= MOST_LINE else "table"
            found = f"{path} holds a {what} longer than any plate's ({total:,} letters)"
            raise InputError(found, hint=_HINT)
        yield line


def _chain(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _split(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
