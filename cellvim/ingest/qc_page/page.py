"""The page itself: what it says in words, and all its parts laid out as HTML without a script."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from cellvim.ingest.preflight import Preflight
from cellvim.ingest.qc_page.maps import COLOURS, plate_maps
from cellvim.ingest.qc_page.measures import MEASURES
from cellvim.ingest.qc_page.pictures import detail_picture, flat_picture, plane_picture
from cellvim.ingest.qc_page.worst import WorstPlane, worst_planes
from cellvim.store import FieldKey, PlateWriter
from cellvim.store.arrays import new_context, open_array, read_pixels
from cellvim.store.illumination import flatten
from cellvim.store.quality import BOUNDS, FEWEST_PLANES, FLAGS
from cellvim.store.reader import absent_wells
from cellvim.store.statistics import PlateStatistics

# Longer lists are cut, as nobody reads on and the table beside the page has all of it.
_MOST_LISTED = 60


@dataclass(frozen=True)
class PlateView:
    """What the page is about.

    Attributes:
        check: The plate as its source describes it.
        writer: Of the plate, all of whose fields are written.
        skipped: Well or field to the reason why the plate lacks it.
    """

    check: Preflight
    writer: PlateWriter
    skipped: Mapping[str, str]


def render_page(view: PlateView, statistics: PlateStatistics) -> str:
    """Lay out the page of one plate. The same plate gives the same bytes: it bears no time and no reason of filling.

    Names come from strangers' files: all of them are escaped, and the page's own policy forbids every script and
    everything remote.
    """
    quality = statistics.quality
    flags = Counter(flag for flags in quality[FLAGS] for flag in flags)
    absent = absent_wells(view.skipped, set(quality["Metadata_Well"]))
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            view=view,
            quality=quality,
            counts=_counts(quality),
            summary=_summary(view, statistics, flags),
            measures=[measure for measure in MEASURES if quality[measure.key].is_not_null().any()],
            bounds=BOUNDS,
            colours=COLOURS,
            maps=plate_maps(quality, view.writer.channels, absent),
            worst=[(plane, _pictures(view, statistics, plane)) for plane in worst_planes(quality)],
            percentiles=statistics.percentiles,
            encodings=statistics.encodings,
            flats=_flat_fields(view),
            filled=_filled(quality),
            most_listed=_MOST_LISTED,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cellvim.ingest.qc_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        whole=lambda number: f"{number:,}",
        value=lambda number: f"{number:,.1f}".removesuffix(".0"),
        counted=_counted,
    )
    return environment


def _counted(number: int, words: str) -> str:
    """``2, "well or field"`` to ``2 wells or fields``."""
    return f"{number:,} {words}" if number == 1 else f"{number:,} {words.replace(' or', 's or')}s"


def _counts(quality: pl.DataFrame) -> dict[str, int]:
    return {
        "wells": quality["Metadata_Well"].n_unique(),
        "fields": quality.select("Metadata_Well", "Metadata_Site").n_unique(),
        "planes": quality.height,
        "suspicious": quality.filter(pl.col(FLAGS).list.len() > 0).height,
        "filled": quality.filter(~pl.col("is_valid")).height,
    }


def _summary(view: PlateView, statistics: PlateStatistics, flags: Mapping[str, int]) -> list[str]:
    """What a person should know before looking closer, the most urgent first."""
    counts = _counts(statistics.quality)
    lines = []
    if counts["suspicious"]:
        verb = "is" if counts["suspicious"] == 1 else "are"
        kinds = ", ".join(f"{count:,} {flag}" for flag, count in flags.items())
        lines.append(
            f"{counts['suspicious']:,} of {_counted(counts['planes'], 'plane')} {verb} suspicious: {kinds}."
        )
    else:
        lines.append(f"None of {_counted(counts['planes'], 'plane')} stands out.")
    if counts["filled"]:
        is_one = counts["filled"] == 1
        verbs = (
            "was missing or damaged, holds zeros and counts"
            if is_one
            else "were missing or damaged, hold zeros and count"
        )
        lines.append(f"{_counted(counts['filled'], 'plane')} {verbs} nowhere.")
    if view.skipped:
        verb = "is" if len(view.skipped) == 1 else "are"
        lines.append(f"{_counted(len(view.skipped), 'well or field')} of the source {verb} not in the plate.")
    per_channel = statistics.quality.filter(pl.col("is_valid")).group_by("channel").len()["len"]
    if per_channel.min() is not None and int(str(per_channel.min())) < FEWEST_PLANES:
        lines.append(
            f"With fewer than {FEWEST_PLANES} planes of a channel nothing is usual: only fixed bounds were applied."
        )
    notes = ((channel, encoding.note) for channel, encoding in statistics.encodings.items() if encoding.note)
    return lines + [f"{channel}: {note}." for channel, note in notes]


def _filled(quality: pl.DataFrame) -> list[str]:
    rows = quality.filter(~pl.col("is_valid")).select("Metadata_Well", "Metadata_Site", "channel").iter_rows()
    return [f"{well}/{site} {channel}" for well, site, channel in rows]


def _pictures(view: PlateView, statistics: PlateStatistics, plane: WorstPlane) -> dict[str, str]:
    """The whole plane, and where focus is in question its centre at full size: data URIs."""
    percentiles = statistics.percentiles[plane.channel]
    window = percentiles["1"], max(percentiles["99.9"], percentiles["1"] + 1)
    pixels = _plane_as_read(view.writer, plane)
    pictures = {"whole": plane_picture(pixels, window)}
    if plane.measure == "focus_slope":
        pictures["centre"] = detail_picture(pixels, window)
    return pictures


def _plane_as_read(writer: PlateWriter, plane: WorstPlane) -> NDArray[Any]:
    """The stored plane, its illumination corrected where readers do that: the percentiles are of those pixels."""
    number = writer.channels.index(plane.channel)
    key = FieldKey(plane.well, plane.site)
    array = open_array(writer.place, f"{key.group}/0", new_context(writer.place))
    pixels = np.asarray(read_pixels(array[number], f"plate {writer.name} field {key}"))
    illumination = writer.illumination
    if illumination is None or illumination.is_baked:
        return pixels
    return flatten(pixels, illumination.flat[number])


def _flat_fields(view: PlateView) -> list[dict[str, str]]:
    illumination = view.writer.illumination
    if illumination is None:
        return []
    return [
        {
            "channel": channel,
            "picture": flat_picture(flat),
            "darkest": f"{flat.min():.2f}",
            "brightest": f"{flat.max():.2f}",
        }
        for channel, flat in zip(view.writer.channels, illumination.flat, strict=True)
    ]
