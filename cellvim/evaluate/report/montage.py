"""Wells and their nearest neighbours, with pictures as far as the page can carry them."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from cellvim.evaluate.report.content import ReportContent
from cellvim.evaluate.report.wording import finite

PICTURE_BYTES = 5_000_000
"""Room for pictures, as base64. With script and data the page stays under 10 MB."""

WellKey = tuple[str, str]
"""Plate and well."""
Row = tuple[int, WellKey, float | None]
"""Rank, neighbour, similarity."""


@dataclass(frozen=True)
class MontageWell:
    """One picture of the montage. `picture` is a place in `Pictures.encoded`, or None."""

    plate: str
    well: str
    perturbation: str
    control: str | None
    picture: int | None


@dataclass(frozen=True)
class Neighbor:
    """A well that resembles the query; `similarity` is the cosine of their profiles."""

    well: MontageWell
    rank: int
    similarity: float | None
    is_same: bool


@dataclass(frozen=True)
class Query:
    well: MontageWell
    neighbors: tuple[Neighbor, ...]

    @property
    def agreeing(self) -> int:
        """Neighbours with the query's own perturbation."""
        return sum(neighbor.is_same for neighbor in self.neighbors)


@dataclass
class Pictures:
    """Thumbnails in use, each stored once, until the room is used up.

    Args:
        found: PNG bytes by well.
        room_bytes: What all encoded pictures together may take.
    """

    found: dict[WellKey, bytes]
    room_bytes: int = PICTURE_BYTES
    encoded: list[str] = field(default_factory=list)
    left_out: int = 0
    _places: dict[WellKey, int | None] = field(default_factory=dict)

    def place(self, key: WellKey) -> int | None:
        """Where a well's picture is stored; None if there is none, or no more room."""
        if key not in self._places:
            self._places[key] = self._store(key)
        return self._places[key]

    def _store(self, key: WellKey) -> int | None:
        png = self.found.get(key)
        if png is None:
            return None
        size_bytes = 4 * -(-len(png) // 3)
        if size_bytes > self.room_bytes:
            self.left_out += 1
            return None
        self.room_bytes -= size_bytes
        self.encoded.append(base64.b64encode(png).decode("ascii"))
        return len(self.encoded) - 1


@dataclass(frozen=True)
class Montage:
    """Queries with their neighbours.

    Args:
        queries: The most active perturbation first, controls last.
        pictures: Their pictures.
        perturbations: Number of perturbations there are to choose queries from.
        is_ranked: Whether the strongest ones were chosen; without activity nothing says which those are.
    """

    queries: tuple[Query, ...]
    pictures: Pictures
    perturbations: int
    is_ranked: bool

    @property
    def extent(self) -> str:
        """Which perturbations are asked about."""
        shown = len({query.well.perturbation for query in self.queries if query.well.control != "negcon"})
        if shown >= self.perturbations:
            return "one well of each perturbation"
        if self.is_ranked:
            return f"the best well of each of the {shown} strongest of {self.perturbations} perturbations"
        return f"one well of each of {shown} of {self.perturbations} perturbations"

    @property
    def faces(self) -> dict[str, int | None]:
        """Picture that stands for each perturbation: that of its query well."""
        return {query.well.perturbation: query.well.picture for query in reversed(self.queries)}


def montage(content: ReportContent, room_bytes: int = PICTURE_BYTES) -> Montage:
    """Lay out the nearest neighbours, the most active perturbation first and the controls last.

    Args:
        content: The report's tables.
        room_bytes: What pictures may take, as base64.
    """
    pictures = Pictures(_thumbnails(content.thumbnails), room_bytes)
    catalogue = _catalogue(content.wells)
    rows = _neighbor_rows(content.neighbors)
    ordered = sorted(rows, key=_most_active_first(content, catalogue))
    for key in ordered:
        pictures.place(key)  # queries stand for their perturbations elsewhere: their pictures come first

    def describe(key: WellKey) -> MontageWell:
        perturbation, control = catalogue.get(key, ("", None))
        return MontageWell(*key, perturbation, control, pictures.place(key))

    queries = tuple(_query(describe(key), rows[key], describe) for key in ordered)
    return Montage(queries, pictures, _leading_rows(content).height, "activity" in content.tasks)


def _query(query: MontageWell, rows: list[Row], describe: Callable[[WellKey], MontageWell]) -> Query:
    neighbors = []
    for rank, key, similarity in rows:
        well = describe(key)
        is_same = bool(query.perturbation) and well.perturbation == query.perturbation
        neighbors.append(Neighbor(well, rank, similarity, is_same))
    return Query(query, tuple(neighbors))


def _thumbnails(thumbnails: pl.DataFrame | None) -> dict[WellKey, bytes]:
    if thumbnails is None:
        return {}
    keys = thumbnails.select(pl.col("Metadata_Plate", "Metadata_Well").cast(pl.String))
    return dict(zip(keys.iter_rows(), thumbnails["png"], strict=True))


def _catalogue(wells: pl.DataFrame) -> dict[WellKey, tuple[str, str | None]]:
    """Perturbation and control type of each well."""
    columns = [f"Metadata_{name}" for name in ("Plate", "Well", "Perturbation", "ControlType")]
    rows = wells.select(pl.col(columns).cast(pl.String)).iter_rows()
    return {(plate, well): (perturbation or "", control) for plate, well, perturbation, control in rows}


def _neighbor_rows(neighbors: pl.DataFrame) -> dict[WellKey, list[Row]]:
    """Neighbours by query, nearest first."""
    columns = ["Metadata_Plate", "Metadata_Well", "rank", "neighbor_plate", "neighbor_well", "similarity"]
    found: dict[WellKey, list[Row]] = {}
    for plate, well, rank, other_plate, other_well, similarity in (
        neighbors.sort("rank").select(columns).rows()
    ):
        row = (int(rank), (str(other_plate), str(other_well)), finite(similarity))
        found.setdefault((str(plate), str(well)), []).append(row)
    return found


def _most_active_first(
    content: ReportContent, catalogue: dict[WellKey, tuple[str, str | None]]
) -> Callable[[WellKey], tuple[bool, float, str, WellKey]]:
    strengths: dict[str, float] = {}
    if content.tasks:
        rows = _leading_rows(content).select("Metadata_Perturbation", f"{content.tasks[0]}_map").iter_rows()
        strengths = {str(name): finite(strength) or 0.0 for name, strength in rows}

    def order(key: WellKey) -> tuple[bool, float, str, WellKey]:
        perturbation, control = catalogue.get(key, ("", None))
        return (control == "negcon", -strengths.get(perturbation, 0.0), perturbation, key)

    return order


def _leading_rows(content: ReportContent) -> pl.DataFrame:
    """Perturbations of the first table."""
    if not content.tables:
        return content.perturbations
    return content.perturbations.filter(pl.col("table") == content.tables[0])
