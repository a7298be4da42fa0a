"""Is a stored plate still what ingest wrote, to the last bit, and what OME-Zarr 0.5 asks for?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cellvim.errors import InputError
from cellvim.progress import progress_bar
from cellvim.provenance import sha256_of
from cellvim.store.checksums import CHECKSUMS_FILE
from cellvim.store.intensity import FIELDS_FILE
from cellvim.store.layout import RECORD_FILE, SHARD, companion_of
from cellvim.store.naming import FieldKey
from cellvim.store.parallel import in_parallel
from cellvim.store.place import Place, open_place
from cellvim.store.reader import PlateReader, refuse_absent
from cellvim.store.records import FieldRecord, load_json, load_table, plane_sha256
from cellvim.store.signature import RUN_FILE, is_as_signed
from cellvim.store.specification import check_metadata

# Each reads one file and hashes it, so this many shards are in memory.
_AT_ONCE = 4
MOST_LINES = 20


@dataclass
class Verification:
    """What was looked at, and what was found.

    Attributes:
        problems: One line each; empty if all is well.
        notes: What is odd, or could not be checked.
        files: Files compared with their checksums.
        fields: Fields whose pixels were read.
        bytes_read: Of files and, where a plate has no checksums, of decoded pixels.
        sources: Source files compared with the manifest.
        seconds: Time taken.
    """

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    fields: int = 0
    bytes_read: int = 0
    sources: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {"is_intact": not self.problems, **asdict(self)}

    def lines(self, *, is_quick: bool) -> list[str]:
        """For people: the problems, or that there are none; what was looked at; notes."""
        counts = {"files": self.files, "fields": self.fields, "source files": self.sources}
        parts = [f"{count:,} {name}" for name, count in counts.items() if count]
        looked = f"{', '.join(parts) or 'metadata'}, {self.bytes_read:,} bytes read in {self.seconds:.1f} s"
        verdict = f"{len(self.problems)} problems" if self.problems else "intact" + " (sizes only)" * is_quick
        rest = len(self.problems) - MOST_LINES
        more = [f"... and {rest:,} more problems: all of them with --json"] if rest > 0 else []
        notes = [f"note: {note}" for note in self.notes]
        return [*self.problems[:MOST_LINES], *more, f"{verdict}: {looked}", *notes]


def verify_plate(location: Path | str, *, quick: bool = False) -> list[str]:
    """List everything that is wrong with a plate; see `check_stored`."""
    return check_stored(location, quick=quick).problems


def check_stored(location: Path | str, *, quick: bool = False) -> Verification:
    """Compare every file's checksum with the one taken when it was written, then metadata and every pixel.

    Args:
        location: PLATE.ome.zarr, with its PLATE.cellvim beside it.
        quick: Of the files that hold pixels compare only the sizes.

    Returns:
        Its problems hold one line each, also where the plate is unfinished or its checksums are lost.

    Raises:
        NotFoundError: No plate there.
    """
    place = open_place(location)
    refuse_absent(place)
    found = Verification()
    try:
        _check_files(place, found, quick=quick)
        if not found.problems:
            reader = PlateReader(location)
            found.problems += check_metadata(place).problems
            found.problems += _missing_from_metadata(reader)
            if not quick and not found.problems:
                _check_pixels(reader, found)
    except InputError as error:
        found.problems.append(error.found)
    return found


def _check_files(place: Place, found: Verification, *, quick: bool) -> None:
    companion = companion_of(place)
    checksums = _recorded(place, companion)
    sizes = _sizes(companion) if quick else {}
    wanted = [(part, name, sha256) for part, named in checksums for name, sha256 in sorted(named.items())]

    def check(file: tuple[Place, str, str]) -> tuple[str | None, int]:
        part, name, sha256 = file
        if quick and part is place and name.endswith(f"/{SHARD}"):
            return _size_problem(part, name, sizes.get(name)), 0
        return _file_problem(part, name, sha256)

    checked = in_parallel(check, wanted, label=f"verify {place.name}", workers=_AT_ONCE)
    for (part, name, _), (problem, size) in zip(wanted, checked, strict=True):
        found.files += 1
        found.bytes_read += size
        if problem:
            found.problems.append(f"{part.name}/{name} {problem}")
    others = set(place.names()) - set(checksums[0][1])
    strangers = [(place, name) for name in sorted(others)]
    # Beside the plate systems leave their files, but no records.
    records = sorted(set(filter(RECORD_FILE.fullmatch, companion.names())) - set(checksums[1][1]))
    strangers += [(companion, name) for name in records]
    found.problems += [f"{part.name}/{name} was not written by ingest" for part, name in strangers]
    _check_run(companion, found)


def _recorded(place: Place, companion: Place) -> list[tuple[Place, dict[str, str]]]:
    """Checksums of the plate's files, then of the companion's.

    Raises:
        InputError: They are lost or damaged.
    """
    if not (place.has("zarr.json") or companion.has(CHECKSUMS_FILE)):
        found = f"{place.name} is not finished"
        raise InputError(found, hint="run the same `cellvim ingest` again, it resumes")
    recorded = load_json(companion, CHECKSUMS_FILE)
    try:
        checksums = [(place, dict(recorded["plate"])), (companion, dict(recorded["companion"]))]
        sane = all(
            _is_inside(name) and isinstance(sha256, str)
            for _, named in checksums
            for name, sha256 in named.items()
        )
    except (LookupError, TypeError, ValueError):
        sane = False
    if not sane:
        found = f"{companion.location}/{CHECKSUMS_FILE} is damaged"
        raise InputError(found, hint="ingest again with --overwrite")
    return checksums


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and "\0" not in name and ".." not in name.split("/")


def _file_problem(place: Place, name: str, sha256: str) -> tuple[str | None, int]:
    try:
        content = place.read(name)
    except FileNotFoundError:
        return "is missing", 0
    except OSError as error:
        return f"cannot be read: {error.strerror or error}", 0
    return None if sha256_of(content) == sha256 else "differs from what was written", len(content)


def _size_problem(place: Place, name: str, size_bytes: int | None) -> str | None:
    if not place.has(name):
        return "is missing"
    return None if place.has(name, size_bytes) else "has another size than what was written"


def _sizes(companion: Place) -> dict[str, int]:
    """File in the plate to the size it was written with; a damaged record is found by its checksum."""
    sizes: dict[str, int] = {}
    for name in companion.names("fields/"):
        if not name.endswith(".json"):
            continue
        try:
            record = FieldRecord.from_bytes(companion.read(name))
        except (OSError, ValueError):
            continue
        sizes |= {f"{record.key.group}/{file.name}": file.size_bytes for file in record.files}
    return sizes


def _check_run(companion: Place, found: Verification) -> None:
    """The record of the run differs from run to run, so that it carries its checksum itself."""
    name = f"{companion.name}/{RUN_FILE}"
    try:
        if not is_as_signed(companion.read(RUN_FILE)):
            found.problems.append(f"{name} differs from what was written")
    except FileNotFoundError:
        found.notes.append(f"{name} is not there: which command, settings and tables made the plate is lost")
    except OSError as error:
        found.problems.append(f"{name} cannot be read: {error.strerror or error}")


def _missing_from_metadata(reader: PlateReader) -> list[str]:
    """Fields that the records and the OME metadata do not both name."""
    named = set(reader.fields_in_metadata())
    recorded = set(reader.fields)
    lost = [f"field {key} is recorded but not named in the plate's metadata" for key in recorded - named]
    extra = [f"field {key} is named in the plate's metadata but not recorded" for key in named - recorded]
    return sorted(lost) + sorted(extra)


def _check_pixels(reader: PlateReader, found: Verification) -> None:
    recorded = load_table(reader.companion, FIELDS_FILE)
    rows = recorded.partition_by("Metadata_Well", "Metadata_Site", as_dict=True, maintain_order=True)
    with progress_bar(f"read {reader.name}", total=len(reader.fields)) as advance:
        for key in reader.fields:
            found.problems += _field_problems(
                reader, key, rows[key.well, key.site]["pixels_sha256"].to_list()
            )
            found.fields += 1
            advance()


def _field_problems(reader: PlateReader, key: FieldKey, expected: Sequence[str]) -> list[str]:
    try:
        pixels = reader.read_field(key, raw=True)
    except InputError as error:
        return [f"field {key}: {error.found}"]
    if len(pixels) != len(expected):
        return [f"field {key} has {len(pixels)} channels, {len(expected)} are recorded"]
    problems = []
    planes = zip(reader.channels, pixels, expected, reader.is_valid(key), strict=True)
    for channel, plane, sha256, is_valid in planes:
        if plane_sha256(plane) != sha256:
            problems.append(f"field {key} channel {channel}: pixels differ from those written")
        if not is_valid and plane.any():
            problems.append(f"field {key} channel {channel} is marked as filled, but holds pixels")
    return problems
