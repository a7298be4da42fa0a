"""The way back: from one record to the records of what it read, matched by content."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cellvim.errors import CellvimError, InputError
from cellvim.provenance.record import Artifact, RunRecord, read_record

RUN_FILE = "run.json"
TABLE_SUFFIX = ".run.json"
PLATE_SUFFIX, COMPANION_SUFFIX = ".ome.zarr", ".cellvim"
MOST_RECORDS = 100_000
MOST_NEIGHBOURS = 100
"""Records that are looked at beside an input, where none goes by its name."""


@dataclass
class Link:
    """One input of a run, and where it came from.

    Args:
        artifact: As the record tells it.
        path: Where it should lie now: absolute, or a URL.
        maker: The run that made it, if its record is there and names the same content.
        note: Why there is none, where one might be looked for.
    """

    artifact: Artifact
    path: Path | str
    maker: "Node | None" = None
    note: str = ""


@dataclass
class Node:
    """One record, the place where it lies, and its inputs."""

    record: RunRecord
    file: Path
    links: list[Link] = field(default_factory=list)

    def located(self, path: str) -> Path | str:
        """Where a path of the record lies now: as recorded, or moved with the record's own folder; or a URL."""
        if "://" in path:
            return path
        recorded = absolute(path, self.record.cwd or self.file.parent)
        if is_there(recorded) or self.record.record is None or "://" in self.record.record:
            return recorded
        home = absolute(self.record.record, self.record.cwd or "/").parent
        moved = absolute(os.path.relpath(recorded, home), self.file.parent)
        return moved if is_there(moved) else recorded

    def makes(self, artifact: Artifact) -> bool:
        """Whether this run wrote the very content."""
        return any(output.sha256 == artifact.sha256 for output in self.record.outputs)


def follow(start: Path) -> list[Node]:
    """Read a record and those of everything it was made from, first runs first, `start` last.

    A record is part of the chain only if it names, by SHA-256, the content that was read.

    Args:
        start: A record, or a folder, table or plate with one.

    Raises:
        NotFoundError: No record there.
        InputError: It is damaged, or the chain leads back to itself.
    """
    file = record_of(start)
    walk = _Walk()
    walk.visit(Node(read_record(file), file))
    return walk.ordered


def follow_reads(record: RunRecord, out: Path) -> list[Node]:
    """The same for a run that is not over yet, and will write its record into `out`.

    Raises:
        InputError: The chain leads back to itself.
    """
    walk = _Walk()
    walk.visit(Node(record, absolute(out, Path.cwd()) / RUN_FILE))
    return walk.ordered


def record_of(path: Path) -> Path:
    """The record of an output folder, table or plate; the path itself where it is one."""
    candidates = [path] if path.name == RUN_FILE or path.name.endswith(TABLE_SUFFIX) else _records_for(path)
    found = next((candidate for candidate in candidates if is_there(candidate)), candidates[0])
    return absolute(found, Path.cwd())


def absolute(path: Path | str, folder: Path | str) -> Path:
    """A path from the root on, without `..`; links stay links, as a plate's companion lies beside the link."""
    return Path(os.path.normpath(Path(folder) / path))


def is_there(path: Path) -> bool:
    """Whether something lies there and may be looked at; in somebody else's home it may not, and `pathlib` raises."""
    return os.access(path, os.F_OK)


class _Walk:
    """Depth first, makers before what was made of them."""

    def __init__(self) -> None:
        self.ordered: list[Node] = []
        self._known: dict[Path, Node] = {}
        self._above: set[Path] = set()
        self._neighbours: dict[Path, list[Path]] = {}

    def visit(self, node: Node) -> None:
        place = node.file.resolve()
        self._known[place] = node
        self._above.add(place)
        if len(self._known) > MOST_RECORDS or len(self._above) > 100:
            found = f"{node.file}: the chain of records does not end"
            raise InputError(found, hint="a record names inputs that it cannot have been made from")
        for artifact in node.record.reads:
            link = Link(artifact, node.located(artifact.path))
            node.links.append(link)
            self._find_maker(link)
        self._above.discard(place)
        self.ordered.append(node)

    def _find_maker(self, link: Link) -> None:
        if isinstance(link.path, str):
            link.note = "in an object store, whose records are not followed"
            return
        if link.artifact.kind in ("images", "label images", "description"):
            return
        for file in self._candidates(link.path):
            node = self._read(file)
            if node is None or not node.makes(link.artifact):
                continue
            if file.resolve() in self._above:
                found = f"{file} is made from what it makes itself: the chain of records leads back to itself"
                raise InputError(found, hint="a record was changed after it was written")
            link.maker = node
            if file.resolve() not in self._known:
                self.visit(node)
            return
        named = next((file for file in _records_for(link.path) if is_there(file)), None)
        if named is not None:
            link.note = f"{named.name} beside it does not name this content"

    def _read(self, file: Path) -> Node | None:
        known = self._known.get(file.resolve())
        if known is not None:
            return known
        try:
            return Node(read_record(file), file)
        except (CellvimError, OSError):
            # Somebody else's file, or a damaged one: not the record that is looked for.
            return None

    def _candidates(self, path: Path) -> Iterator[Path]:
        """Records that go by the input's name, then those of its neighbours."""
        own = [file for file in _records_for(path) if is_there(file)]
        yield from own
        folder = path.parent
        if folder not in self._neighbours:
            self._neighbours[folder] = _records_in(folder)
        yield from (file for file in self._neighbours[folder] if file not in own)


def _records_for(path: Path) -> list[Path]:
    """Where the record of a file, folder or plate would lie."""
    if path.name.endswith(PLATE_SUFFIX):
        return [path.with_name(path.name.removesuffix(PLATE_SUFFIX) + COMPANION_SUFFIX) / RUN_FILE]
    if is_there(path) and path.is_dir():
        return [path / RUN_FILE]
    # `a.thumbnails.parquet` and `a.block02.parquet` are of the run of `a.parquet`.
    stems = [path.name.rsplit(".", count)[0] for count in range(1, path.name.count(".") + 1)]
    return [*(path.with_name(stem + TABLE_SUFFIX) for stem in stems), path.parent / RUN_FILE]


def _records_in(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.endswith(TABLE_SUFFIX):
                found.append(Path(entry.path))
            if len(found) >= MOST_NEIGHBOURS:
                break
    except OSError:
        return []
    return found
