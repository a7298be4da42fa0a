"""Names of wells, fields and plates: one spelling inside cellvim, many on the way in."""

import re
from dataclasses import dataclass

from cellvim.errors import InputError

ROW_COUNT = 32
COLUMN_COUNT = 48
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,119}")
# Of one component of a path that is neither hidden nor taken for a flag.
_ONE_FILE = re.compile(r"[^./\\\s-][^/\\]*")
_MOST_NAME_BYTES = 200
# Only wells that exist, so that a match needs no further checks.
ROW_EXPRESSION = r"(?:A[A-F]|[A-Z])"
COLUMN_EXPRESSION = r"0{0,2}(?:4[0-8]|[1-3]\d|[1-9])"
_WELL = re.compile(rf"({ROW_EXPRESSION})[-_ ]?({COLUMN_EXPRESSION})", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")


@dataclass(frozen=True)
class FieldKey:
    """One field of view: a well such as ``B03`` and the number of the site within it."""

    well: str
    site: int

    @property
    def group(self) -> str:
        """Path of the field's group inside the plate, for example ``B/03/1``."""
        row, column = split_well(self.well)
        return f"{row}/{column}/{self.site}"

    def __str__(self) -> str:
        return f"{self.well}/{self.site}"

    def __lt__(self, other: "FieldKey") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int]:
        return (*well_position(self.well), self.site)


def parse_well(text: str) -> str:
    """Spell a well as ``A01``, whatever padding and case it came with.

    Raises:
        InputError: Not a well of a plate of at most 1536 wells (``A1`` to ``AF48``).
    """
    match = _WELL.fullmatch(text.strip())
    if match is None:
        found = f"{text!r} is not a well"
        raise InputError(found, hint="wells run from A1 to AF48, and look like B7 or B07")
    return well_name(row_number(match[1]), int(match[2]))


def well_name(row: int, column: int) -> str:
    """Name the well at a row and column, both counted from 1.

    Raises:
        InputError: Outside a plate of 32 rows and 48 columns.
    """
    if not (1 <= row <= ROW_COUNT and 1 <= column <= COLUMN_COUNT):
        found = (
            f"row {row} column {column} lies outside a plate of {ROW_COUNT} rows and {COLUMN_COUNT} columns"
        )
        raise InputError(found, hint="rows run from A to AF and columns from 1 to 48")
    return f"{row_name(row)}{column:02d}"


def row_name(row: int) -> str:
    """Letters of a row counted from 1: A..Z, then AA..AF."""
    return chr(64 + row) if row <= 26 else f"A{chr(64 + row - 26)}"


def row_number(letters: str) -> int:
    """Number of a row, from 1. The inverse of `row_name`; case does not matter.

    Raises:
        InputError: No plate has such a row.
    """
    letters = letters.upper()
    number = ord(letters) - 64 if len(letters) == 1 else 26 + ord(letters[1]) - 64
    if (
        len(letters) not in (1, 2)
        or (len(letters) == 2 and letters[0] != "A")
        or not 1 <= number <= ROW_COUNT
    ):
        found = f"{letters!r} is not a row"
        raise InputError(found, hint="rows run from A to Z, then from AA to AF")
    return number


def split_well(well: str) -> tuple[str, str]:
    """``B03`` to ``("B", "03")``."""
    return well[:-2], well[-2:]


def well_position(well: str) -> tuple[int, int]:
    """Row and column of a well spelt as `parse_well` does, from 1."""
    row, column = split_well(well)
    return row_number(row), int(column)


def safe_name(text: str) -> str:
    """Turn a name from a stranger's file into one that is safe as a file name.

    Raises:
        InputError: Nothing usable remains.
    """
    name = _UNSAFE.sub("_", text.strip()).strip("._-")[:120]
    if not SAFE_NAME.fullmatch(name):
        found = f"{text!r} cannot be a plate name"
        raise InputError(found, hint="name the plate with --plate, in letters, digits, dots and dashes")
    return name


def check_plate_name(name: object, location: str) -> str:
    """Take the name that a stored plate gives itself; it becomes part of paths, and the plate may be a stranger's.

    Other programs' plates may have spaces and accents in their names, and keep them.

    Raises:
        InputError: It is no name of a file.
    """
    is_one_file = isinstance(name, str) and _ONE_FILE.fullmatch(name) and name.isprintable()
    if not isinstance(name, str) or not is_one_file or len(name.encode()) > _MOST_NAME_BYTES:
        found = f"{location} names its plate {name!r:.200}, which is no name of a file"
        raise InputError(found, hint="ingest it again, and name it with --plate")
    return name


def check_field(well: object, site: object, *, where: object) -> FieldKey:
    """Take a field that a stored plate lists, as its well and site become a path, too.

    Raises:
        InputError: There is no such field.
    """
    match = _WELL.fullmatch(well) if isinstance(well, str) else None
    if (
        match is None
        or well_name(row_number(match[1]), int(match[2])) != well
        or not isinstance(site, int)
        or site < 0
    ):
        found = f"{where} lists the field {well!r:.200}, site {site!r:.20}, which is none"
        raise InputError(found, hint="`cellvim verify` lists all damage; ingest again")
    return FieldKey(match[0], site)
